"""The adapter of PEFT: it calls PEFT itself, its claims hold but for the recorded deviations, and those replay."""

import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from qloracle_conformance.adapters import peft as adapter
from qloracle_conformance.backend import Backend
from qloracle_conformance.deviations import Deviation, read_deviations
from qloracle_conformance.execution import InProcess
from qloracle_conformance.operations.operation import with_default_options
from qloracle_conformance.registry import OPERATIONS
from qloracle_conformance.replay import replayed
from qloracle_conformance.run import run_task
from qloracle_conformance.scripts.write import script_of
from qloracle_conformance.task import Task
from qloracle_conformance.verdicts import BROKEN, PropertyResult

from .commands import PROGRAM, environment

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT and what it imports warn of many things

SHIPPED = Path(str(files("qloracle_conformance"))) / "deviations_of"
MAKERS = {
    "peft": adapter.backend,
    "peft-bfloat16": adapter.backend_bfloat16,
    "peft-float16": adapter.backend_float16,
    "peft-4bit": adapter.backend_4bit,
    "peft-8bit": adapter.backend_8bit,
}
NEEDED = {name: "bitsandbytes" if name.endswith("bit") else "peft" for name in MAKERS}


def recorded() -> Iterator[tuple[str, int]]:
    """The backend and the number of every entry, without loading PEFT."""
    for name in MAKERS:
        for path in sorted((SHIPPED / name).glob("*.toml")):
            count = len(tomllib.loads(path.read_text(encoding="utf-8"))["deviation"])
            yield from ((name, number) for number in range(count))


ENTRIES = list(recorded())


class Loaded:
    """Backends and entries, each read once."""

    def __init__(self) -> None:
        self.backends: dict[str, Backend] = {}
        self.entries: dict[str, list[Deviation]] = {}

    def backend(self, name: str = "peft") -> Backend:
        for library in ("peft", NEEDED[name]):
            if find_spec(library) is None:
                pytest.skip(f"NOT RUN: judging {name} needs {library}, which is not installed here")
        if name not in self.backends:
            self.backends[name] = MAKERS[name]("cpu")
        return self.backends[name]

    def deviations(self, name: str) -> list[Deviation]:
        if name not in self.entries:
            paths = sorted((SHIPPED / name).glob("*.toml"))
            self.entries[name] = [entry for path in paths for entry in read_deviations(path, name)]
        return self.entries[name]


@pytest.fixture(scope="module")
def loaded() -> Loaded:
    return Loaded()


def verdicts_of(backend: Backend, operation: str, family: str, cases: int = 6) -> dict[str, PropertyResult]:
    """The verdicts by stage on one family under the backend's own claim."""
    claim = next(claim for claim in backend.claims if claim.operation == operation)
    task = Task(OPERATIONS[operation], family, with_default_options(claim, OPERATIONS[operation]), cases, 0, 0)
    return {result.stage: result for result in run_task(InProcess(backend), task)}


def broken(results: dict[str, PropertyResult]) -> set[str]:
    """The stages that break their claim; a few cases need not reach every stage."""
    return {s for s, r in results.items() if r.status in BROKEN and r.message != "no case was generated"}


def test_the_package_is_imported_without_peft() -> None:
    code = "import sys, qloracle_conformance.adapters.peft; print('peft' in sys.modules, 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "False"]


def test_another_device_than_the_cpu_is_refused() -> None:
    with pytest.raises(ValueError, match="on cpu only, got 'cuda'"):
        adapter.backend("cuda")


@pytest.mark.parametrize(
    ("operation", "families"),
    [
        ("lora.forward", ("small_lattice", "few", "options")),
        ("lora.backward", ("small_lattice", "few")),
        ("dora.forward", ("small_lattice", "normal")),
        ("embedding.forward", ("small_lattice", "repeated")),
        ("embedding.backward", ("small_lattice", "sums")),
        ("lora.merge", ("small_lattice", "ties", "specials")),
        ("lora.unmerge", ("small_lattice",)),
        ("lora.merge_safe", ("specials", "exponents")),
        ("lora.merge_cycles", ("normal",)),
        ("bias.merge", ("small_lattice",)),
        ("dora.merge", ("small_lattice", "normal")),
        ("lora.init", ("range_ends",)),
        ("embedding.init", ("ramps",)),
        ("adapters.concatenate", ("small_lattice",)),
        ("adapters.patterns", ("patterns",)),
        ("adapters.count", ("shapes",)),
        ("adapters.biases", ("modes",)),
    ],
)
def test_peft_keeps_what_is_claimed_of_it(loaded: Loaded, operation: str, families: tuple[str, ...]) -> None:
    for family in families:
        results = verdicts_of(loaded.backend(), operation, family, cases=4)
        assert not broken(results), {s: r.message for s, r in results.items()}
        assert any(result.status == "pass" and result.tally.elements for result in results.values())


def test_peft_keeps_what_is_claimed_of_it_on_quantized_layers(loaded: Loaded) -> None:
    for name, operations in {
        "peft-4bit": ("qlora.forward", "qlora.backward", "qlora_double.forward", "qdora.forward", "blocks.merge"),
        "peft-8bit": ("qlora_int8.forward", "qlora_int8.backward"),
    }.items():
        for operation in operations:
            results = verdicts_of(loaded.backend(name), operation, "small_lattice", cases=3)
            assert not broken(results), (operation, {s: r.message for s, r in results.items()})


def test_a_wrong_scale_in_peft_shows_at_the_scale(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded.backend()
    from peft.tuners.lora.layer import LoraLayer

    right = LoraLayer.update_layer

    def with_alpha_alone(self: Any, name: str, *rest: Any, **more: Any) -> None:
        right(self, name, *rest, **more)
        self.scaling[name] = self.lora_alpha[name]

    monkeypatch.setattr(LoraLayer, "update_layer", with_alpha_alone)
    results = verdicts_of(backend, "lora.forward", "small_lattice", cases=20)
    assert broken(results) >= {"scale"}
    assert results["base"].status == results["bias"].status == "pass"
    finding = results["scale"].tally.finding
    assert finding is not None
    assert finding.cause == "alpha is used instead of alpha/r"


def test_a_layer_that_drops_nothing_shows_at_the_dropout(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded.backend()
    import torch

    monkeypatch.setattr(torch.nn.Dropout, "forward", lambda _, x: x)
    results = verdicts_of(backend, "lora.forward", "small_lattice", cases=20)
    assert "dropout" in broken(results)
    assert results["base"].status == results["scale"].status == "pass"


def test_merging_is_that_of_peft(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded.backend()
    from peft.tuners.lora.layer import Linear

    delta = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: delta(self, name) * 2)
    for operation in ("lora.merge", "lora.unmerge", "dora.merge"):
        assert "weight" in broken(verdicts_of(backend, operation, "small_lattice")), operation


def test_there_are_entries_for_every_kind_of_layer() -> None:
    assert {name for name, _ in ENTRIES} == set(MAKERS)


@pytest.mark.parametrize(("name", "number"), ENTRIES)
def test_a_recorded_deviation_still_replays(loaded: Loaded, name: str, number: int) -> None:
    backend, entry = loaded.backend(name), loaded.deviations(name)[number]
    if not entry.versions.contains(backend.version, prereleases=True):
        pytest.skip(f"NOT RUN: {entry.place} is of peft {entry.versions}, here is {backend.version}")
    assert replayed(entry.witness, InProcess(backend)).status in BROKEN, entry.place


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "number"), ENTRIES)
def test_a_recorded_deviation_shows_with_the_library_alone(
    loaded: Loaded, name: str, number: int, tmp_path: Path
) -> None:
    backend, entry = loaded.backend(name), loaded.deviations(name)[number]
    if not entry.versions.contains(backend.version, prereleases=True):
        pytest.skip(f"NOT RUN: {entry.place} is of peft {entry.versions}, here is {backend.version}")
    script = tmp_path / "script.py"
    script.write_text(script_of(entry.witness, reason=entry.reason), encoding="utf-8")
    guard = (
        "import sys, runpy\n"
        "class Refused:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name.partition('.')[0].startswith('qloracle'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refused())\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", guard, str(script)], capture_output=True, text=True, check=False)
    assert ended.returncode == 1, ended.stderr[-2000:]
    assert "Traceback" not in ended.stderr, ended.stderr[-2000:]
    assert ended.stdout.strip()


def test_an_entry_whose_fault_is_gone_is_fixed(loaded: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = loaded.backend("peft-4bit")
    from peft.tuners.lora.bnb import Linear4bit

    entry = next(e for e in loaded.deviations("peft-4bit") if e.witness.operation == "bias.merge")
    right = Linear4bit.merge

    def scaled(self: Any, *rest: Any, **more: Any) -> None:
        for name, factor in self.scaling.items():
            self.lora_B[name].bias.data *= factor
        right(self, *rest, **more)

    monkeypatch.setattr(Linear4bit, "merge", scaled)
    assert replayed(entry.witness, InProcess(backend)).status == "pass"


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", MAKERS)
def test_a_run_with_the_recorded_deviations_passes(loaded: Loaded, name: str, tmp_path: Path) -> None:
    loaded.backend(name)
    made = {maker: attribute for attribute, maker in vars(adapter).items() if attribute.startswith("backend")}
    arguments = ["--backend", f"{adapter.__name__}:{made[MAKERS[name]]}", "--profile", "smoke"]
    path = next((SHIPPED / name).glob("*.toml"))
    ended = subprocess.run(
        [*PROGRAM, "check", *arguments, "--deviations", str(path)],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
