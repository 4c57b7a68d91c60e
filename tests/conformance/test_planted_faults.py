"""Faults planted in the torch backend: found at the right stage, explained, and replayed without Hypothesis."""

import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from .commands import Ended, qloracle, write_module

pytestmark = pytest.mark.slow

# One backend with four faults, each in an operation of its own.
FAULTY = """
    from dataclasses import replace

    import torch

    import qloracle_gpu.torch as q
    from qloracle_gpu.torch.conformance import backend as honest

    BASE = honest()
    OPS = BASE.ops

    def quantize_blockwise(x, *, codebook, block_size):
        if codebook == "nf4":  # swapped nibbles
            data, absmax = OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
            return (data << 4) | (data >> 4), absmax
        if x.dim() < 2:
            return OPS["quantize_blockwise"](x, codebook=codebook, block_size=block_size)
        rows = x.reshape(-1, x.shape[-1])  # every row begins a new block
        parts = [OPS["quantize_blockwise"](row, codebook=codebook, block_size=block_size) for row in rows]
        return torch.cat([data for data, _ in parts]), torch.cat([absmax for _, absmax in parts])

    def quantize_int8(x, **options):  # halves are rounded away from zero
        codes, absmax = OPS["quantize_int8"](x, **options)
        quotient = 127 * x.double() / absmax.double().unsqueeze(-1)
        rounded = torch.sign(quotient) * torch.floor(quotient.abs() + 0.5)
        return torch.where(torch.isfinite(quotient), rounded, codes.double()).to(torch.int8), absmax

    def lora_forward(*, alpha, lora_a, rank_stabilized, **rest):  # alpha instead of alpha/r
        rank = lora_a.shape[0] ** 0.5 if rank_stabilized else lora_a.shape[0]
        return OPS["lora_forward"](alpha=alpha * rank, lora_a=lora_a, rank_stabilized=rank_stabilized, **rest)

    faulty = {
        "quantize_blockwise": quantize_blockwise, "quantize_int8": quantize_int8, "lora_forward": lora_forward,
    }
    names = ("nf4.quantize", "dynamic_signed.quantize", "int8_row.quantize", "lora.forward")
    claims = tuple(claim for claim in BASE.claims if claim.operation in names)
    backend = replace(BASE, name="faulty", ops={**OPS, **faulty}, claims=claims)
"""
FAMILIES = "*.[brs][aom]*"  # boundaries, ramps, small_lattice


@dataclass(frozen=True)
class Fault:
    """What the report must say of a fault."""

    operation: str
    stage: str
    table: str  # in the row of the stage: pattern, size, cause
    finding: dict[str, str]  # by name of the printed item, patterns


FAULTS = {
    "swapped nibbles": Fault(
        "nf4.quantize", "packing",
        r"\b(all \d+ elements|\d+ of \d+).*; the bytes are packed with the first code in the low nibble",
        {"where": r".*\d+.*", "cause": "the bytes are packed with the first code in the low nibble"},
    ),
    "a new block for every row": Fault(
        "dynamic_signed.quantize", "absmax",
        r"the whole output; output 1 must have shape \(\d+,\), got \(\d+,\); every row begins a new block",
        {"where": "the whole output", "size": r"output 1 must have shape \(\d+,\), got \(\d+,\)",
         "cause": "every row begins a new block"},
    ),
    "INT8 rounding half away": Fault(
        "int8_row.quantize", "codes",
        r"boundaries: .*\d+.*; off by up to 1 units; exact midpoints go to the upper entry",
        {"where": r".*\d+.*", "size": "off by up to 1 units", "got": r"-?\d+ at element \d+ of the witness",
         "allowed": r"-?\d+", "given": r".*127·x/absmax = -?\d+\.5, code = -?\d+, distance to the nearest .*"},
    ),
    "alpha instead of alpha/r": Fault(
        "lora.forward", "scale", r"small_lattice: .*\d+.*; off by up to \d+ ulp; alpha is used instead of alpha/r",
        {"where": r".*\d+.*", "size": r"off by up to \d+ ulp", "cause": "alpha is used instead of alpha/r",
         "got": r"0x[0-9a-f]+ \(.*\) at element \d+ of the witness", "allowed": r"0x[0-9a-f]+ \(.*\)"},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run against the faulty backend."""

    folder: Path
    ended: Ended

    def row(self, operation: str, stage: str) -> str:
        """The row of a stage in the table, with its continued lines."""
        table, found, previous = self.ended.out.partition("inputs unchanged")[0], [""], ""
        for line in table.splitlines()[2:]:
            if re.match(r"^([a-z0-9_]+\.[a-z]+)? +[a-z_]+ +[a-z-]+ +(exact|bound) ", line):
                previous = line.split(maxsplit=1)[0] if line[0] != " " else previous
                found.append(line if line[0] != " " else previous + line)
            else:
                found[-1] += " " + line.strip()
        (row,) = [" ".join(r.split()) for r in found if r.split()[:2] == [operation, stage]]
        return row

    def items(self, fault: Fault) -> dict[str, str]:
        """What is printed of the first property of a stage, by name."""
        _, _, rest = self.ended.out.partition(f"\n{fault.operation}.{fault.stage}.")
        lines = rest.partition("\n\n")[0].splitlines()[1:]
        return {line[:10].strip(): line[10:].strip() for line in lines}

    def replay(self, fault: Fault) -> list[str]:
        """The arguments of the printed replay command."""
        program, *arguments = shlex.split(self.items(fault)["replay"])
        assert program == "qloracle"
        return arguments


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, torch_backend: str) -> Run:
    folder = tmp_path_factory.mktemp("a fault")
    name = write_module(folder, "faulty", FAULTY)
    return Run(folder, qloracle(folder, "check", "--backend", name, "--only", FAMILIES, "--profile", "smoke"))


def test_faults_of_the_torch_backend_are_caught(run: Run) -> None:
    assert run.ended.code == 1, str(run.ended)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_table_alone_tells_stage_pattern_size_and_cause(run: Run, fault: Fault) -> None:
    row = run.row(fault.operation, fault.stage)
    assert row.split()[2] == "fail", row
    assert re.search(fault.table, row), f"{fault.table!r} is not in the row {row!r}"


@pytest.mark.parametrize(
    ("operation", "stages"),
    [
        ("nf4.quantize", {"absmax": "pass", "codes": "pass"}),
        ("dynamic_signed.quantize", {"codes": "blocked"}),
        ("int8_row.quantize", {"absmax": "pass"}),
        ("lora.forward", {"base": "pass", "bias": "pass", "adapter": "pass", "dropout": "pass"}),
    ],
)
def test_no_other_stage_is_named(run: Run, operation: str, stages: dict[str, str]) -> None:
    assert {stage: run.row(operation, stage).split()[2] for stage in stages} == stages, str(run.ended)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_finding_is_printed_item_by_item(run: Run, fault: Fault) -> None:
    items = run.items(fault)
    for name, pattern in fault.finding.items():
        shown = items.get(name, "")
        assert re.fullmatch(pattern, shown), f"{name}: {shown!r} is not {pattern!r}\n{run.ended}"


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_witness_is_a_file_of_the_failing_case(run: Run, fault: Fault) -> None:
    content = json.loads((run.folder / run.replay(fault)[1]).read_text())
    assert content["property"].startswith(f"{fault.operation}.{fault.stage}.")
    assert (content["backend"]["name"], content["claim"]["basis"]) == ("faulty:backend", "promised")
    assert content["inputs"], "the witness has no inputs"
    assert all(re.fullmatch(r"[0-9a-f ]*", a["words"]) for a in content["inputs"].values() if a is not None)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_the_printed_command_fails_the_same_way_in_a_new_process_without_hypothesis(
    run: Run, fault: Fault, tmp_path: Path
) -> None:
    (tmp_path / "hypothesis.py").write_text("raise ImportError('hypothesis must not be needed')\n")
    ended = qloracle(run.folder, *run.replay(fault), first=(tmp_path,))
    assert ended.code == 1, str(ended)
    assert "Traceback" not in ended.out + ended.err, str(ended)
    first, *shown = ended.out.splitlines()
    assert re.fullmatch(rf"{fault.operation}\.{fault.stage}\.[a-z_]+ on faulty \S+: fail", first), str(ended)
    if "got" in run.items(fault):
        got = run.items(fault)["got"].partition(" at element")[0]
        (again,) = [line.split(maxsplit=1)[1] for line in shown if line.strip().startswith("got")]
        assert again.startswith(got), f"{got!r} was printed first\n{ended}"
