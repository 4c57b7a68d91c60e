"""`qloracle footprint`: what a model takes in memory under each scheme, and while it is trained."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from qloracle.footprint.schemes import SCHEMES
from qloracle.footprint.training import OPTIMIZERS
from qloracle_conformance.commands.guard import console, guarded
from qloracle_conformance.usage import UsageError

_SCHEMES = ", ".join(SCHEMES)

Names = list[str]


def footprint(
    source: Annotated[
        str | None,
        typer.Argument(help="FILE.safetensors, a config.json, a JSON list of [NAME, SHAPE], or package:NAME."),
    ] = None,
    shape: Annotated[
        Names | None, typer.Option(help="NAME=768x768 instead of a file: a tensor; repeat it. fc.weight is linear.")
    ] = None,
    scheme: Annotated[
        Names | None, typer.Option(help=f"Scheme of storage; repeat it. Not given: a selection of {_SCHEMES}.")
    ] = None,
    block_size: Annotated[int | None, typer.Option(help="Elements of a block, where a scheme has blocks (64).")] = None,
    other: Annotated[str | None, typer.Option(help="Format of what is not quantized (float16).")] = None,
    skip: Annotated[Names | None, typer.Option(help="Module that is not quantized (lm_head); repeat it.")] = None,
    tables: Annotated[str, typer.Option(help="Codebooks: shared, or per_tensor (a copy with each).")] = "shared",
    fan_in_fan_out: Annotated[
        bool, typer.Option("--fan-in-fan-out", help="FILE stores linear weights as (d_in, d_out), as GPT-2 does.")
    ] = False,
    rank: Annotated[int, typer.Option(help="Rank of the adapters of LoRA and QLoRA.")] = 16,
    target: Annotated[Names | None, typer.Option(help="Module with an adapter; repeat it. Not given: linear.")] = None,
    adapter: Annotated[str, typer.Option(help="Format of adapters: float32, float16 or bfloat16.")] = "float32",
    optimizer: Annotated[str, typer.Option(help=f"{', '.join(OPTIMIZERS)}.")] = "adamw_32bit",
    device_budget: Annotated[
        int | None,
        typer.Option(help="Bytes of states that a paged optimizer keeps on device. Not given: all wait on the host."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Count the bytes of a model: weights under each scheme, scales and tables included, and training memory."""

    def action() -> int:
        from qloracle_conformance.footprints import Training, given_model, measure, read_model
        from qloracle_conformance.footprints_table import print_footprints

        if (source is None) == (not shape):
            raise UsageError("give a file (or package:NAME), or --shape NAME=ROWSxCOLUMNS, and not both")
        model = (
            given_model(shape or (), fan_in_fan_out=fan_in_fan_out)
            if source is None
            else read_model(source, fan_in_fan_out=fan_in_fan_out)
        )
        training = Training(rank, tuple(target) if target else None, adapter, optimizer, device_budget)
        measured = measure(model, scheme, block_size, other, tuple(skip) if skip else None, tables, training)
        if as_json:
            print(json.dumps(asdict(measured), indent=2))  # noqa: T201
        else:
            print_footprints(console(), measured)
        return 0

    guarded(action)
