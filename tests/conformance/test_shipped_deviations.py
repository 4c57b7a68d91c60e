"""Every shipped deviation still fails, and its script shows it with the library and NumPy alone."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.deviations import Deviation, read_deviations
from qloracle_conformance.execution import InProcess
from qloracle_conformance.loading import load_backend
from qloracle_conformance.replay import replayed
from qloracle_conformance.scripts.write import script_of
from qloracle_conformance.shipped import FOLDER, deviations_path, shipped_deviations, shipped_files
from qloracle_conformance.usage import UsageError
from qloracle_conformance.verdicts import BROKEN

from .commands import qloracle, require_one_message

# Of every library: its adapter's record, and the package that it needs.
LIBRARIES = {
    "bitsandbytes": ("bitsandbytes:backend", "bitsandbytes"),
    "torchao": ("torchao:backend", "torchao"),
    "ml_dtypes": ("ml_dtypes:backend", "ml_dtypes"),
    "torch_casts": ("torch_casts:backend", "torch"),
    "torch_optim": ("torch_optim:backend", "torch"),
    "peft": ("peft:backend", "peft"),
    "peft-bfloat16": ("peft:backend_bfloat16", "peft"),
    "peft-float16": ("peft:backend_float16", "peft"),
    "peft-4bit": ("peft:backend_4bit", "peft"),
    "peft-8bit": ("peft:backend_8bit", "peft"),
}
FEW = 3  # scripts of a library that a plain run of the tests starts; the exhaustive one starts all
FILES = [(name, path) for name, versions in shipped_files().items() for path in versions.values()]

# Runs scripts one after another in an interpreter where nothing of qloracle can be imported, and prints their codes.
RUNNER = """
import runpy, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("qloracle", "qloracle_conformance", "qloracle_gpu"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
try:
    import qloracle
    sys.exit("qloracle could be imported")
except ImportError:
    pass
for script in sys.argv[1:]:
    try:
        runpy.run_path(script, run_name="__main__")
        code = "none"
    except SystemExit as end:
        code = end.code
    print("EXIT", script, code, flush=True)
"""


def adapter(name: str) -> str:
    """How `--backend` names the adapter of a library, installed or not."""
    return f"qloracle_conformance.adapters.{LIBRARIES[name][0]}"


def require_library(name: str) -> None:
    """Skip where the library is missing."""
    package = LIBRARIES[name][1]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    if name == "bitsandbytes":
        from bitsandbytes.functional import has_avx512bf16

        if not has_avx512bf16():
            pytest.skip(
                "the deviations of bitsandbytes were seen on a CPU with AVX-512 BF16; this one runs other kernels"
            )


def exit_codes(scripts: list[Path]) -> list[str]:
    """Run scripts in one interpreter that cannot import qloracle."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    command = [sys.executable, "-W", "ignore", "-c", RUNNER, *map(str, scripts)]
    done = subprocess.run(
        command,
        cwd=scripts[0].parent,
        env={**plain, "OMP_NUM_THREADS": "2"},
        check=False,
        capture_output=True,
        text=True,
        timeout=570,
    )
    found = re.findall(r"^EXIT \S+ (\S+)$", done.stdout, re.MULTILINE)
    assert len(found) == len(scripts), done.stdout[-2000:] + done.stderr[-2000:]
    return found


def deviations(name: str, path: Path) -> list[Deviation]:
    """The deviations of a shipped file, where they can apply: a library of another version has others."""
    require_library(name)
    listed = read_deviations(path, name)
    assert listed, f"{path} lists nothing"
    version = load_backend(adapter(name), "cpu").version
    if not listed[0].versions.contains(version, prereleases=True):
        pytest.skip(f"{name} {version} is installed, {path.name} is of another version")
    return listed


def replay_and_run(name: str, chosen: list[Deviation], folder: Path) -> None:
    """Require that every deviation still fails, and that its script ends with 1."""
    backend, scripts = load_backend(adapter(name), "cpu"), []
    for number, deviation in enumerate(chosen):
        status = replayed(deviation.witness, InProcess(backend)).status
        assert status in BROKEN, f"{deviation.witness.property}: {status}"
        scripts.append(folder / f"{number}_{deviation.witness.property.replace('.', '_')}.py")
        scripts[-1].write_text(script_of(deviation.witness, adapter(name), "cpu", deviation.reason), encoding="utf-8")
    codes = exit_codes(scripts)
    gone = [script.name for script, code in zip(scripts, codes, strict=True) if code != "1"]
    assert not gone, f"these scripts show nothing: {gone}"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # a library's warning is no verdict, as in a worker process
@pytest.mark.parametrize(("name", "path"), FILES, ids=[name for name, _ in FILES])
def test_some_deviations_of_every_library_replay_and_their_scripts_show_them(
    name: str, path: Path, tmp_path: Path
) -> None:
    listed = deviations(name, path)
    replay_and_run(name, listed[:: max(1, len(listed) // FEW)][:FEW], tmp_path)


@pytest.mark.exhaustive
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "path"), FILES, ids=[name for name, _ in FILES])
def test_every_deviation_replays_and_its_script_shows_it(name: str, path: Path, tmp_path: Path) -> None:
    replay_and_run(name, deviations(name, path), tmp_path)


@pytest.mark.parametrize(("name", "path"), FILES, ids=[name for name, _ in FILES])
def test_every_shipped_file_reads_and_uses_every_witness_beside_it(name: str, path: Path) -> None:
    listed = read_deviations(path, name)
    used = {f"{deviation.witness.property}.json" for deviation in listed}
    assert used == {witness.name for witness in path.with_suffix("").glob("*.json")}
    assert all(deviation.witness.backend == name for deviation in listed)
    assert len({deviation.witness.property for deviation in listed}) == len(listed)


def info(name: str, version: str) -> BackendInfo:
    return BackendInfo(name, version, (), (), {})


def test_shipped_means_the_file_of_the_backend_and_its_version() -> None:
    (path,) = shipped_files()["ml_dtypes"].values()
    assert path.parent == FOLDER / "ml_dtypes"
    assert shipped_deviations(info("ml_dtypes", path.stem), "cpu") == path
    assert shipped_deviations(info("ml_dtypes", f"{path.stem}+local"), "cpu") == path
    assert deviations_path(Path("own.toml"), info("none", "1"), "cpu") == Path("own.toml")


@pytest.mark.parametrize(
    ("name", "version", "device", "told"),
    [
        ("mine", "1.0", "cpu", "no deviations of 'mine' are shipped; there are those of: bitsandbytes"),
        ("ml_dtypes", "0.0.1", "cpu", "no deviations of ml_dtypes 0.0.1 are shipped"),
        ("ml_dtypes", "0.6.0", "cuda:1", "seen on the cpu, not on 'cuda:1'"),
    ],
)
def test_shipped_is_refused_where_there_is_no_file(name: str, version: str, device: str, told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)):
        shipped_deviations(info(name, version), device)


@pytest.mark.slow
def test_the_command_line_takes_shipped_for_a_path(tmp_path: Path) -> None:
    require_library("ml_dtypes")
    common = ("check", "--backend", adapter("ml_dtypes"), "--only", "float8_e5m2.*", "--profile", "smoke")
    assert qloracle(tmp_path, *common).code == 1
    ended = qloracle(tmp_path, *common, "--deviations", "shipped")
    assert ended.code == 0, str(ended)
    assert "known: the cast goes through float32" in ended.out


def test_a_backend_without_shipped_deviations_is_one_message(tmp_path: Path) -> None:
    own = ("--backend", "qloracle_conformance.adapters.reference:backend", "--only", "nf4.entries.*")
    require_one_message(qloracle(tmp_path, "check", *own, "--deviations", "shipped"), 2, "no deviations of 'reference'")
