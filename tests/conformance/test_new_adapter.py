"""A new adapter runs at once, claims nothing until told, and its stubs are those of the signatures."""

import inspect
from pathlib import Path

import pytest

from qloracle_conformance.files import FileError
from qloracle_conformance.new_adapter import new_adapter, template
from qloracle_conformance.protocols import PROTOCOLS
from qloracle_conformance.registry import OPERATIONS

from .commands import qloracle

KINDS = ("numpy", "torch")


def uncommented(text: str) -> str:
    """The template with every stub and claim in force."""
    lines = []
    for line in text.splitlines():
        stub = line.startswith("#") and not line.startswith(("# `", "# What"))
        lines.append(line.removeprefix("# ").removeprefix("#") if stub else line)
    return "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_runs_and_claims_nothing_which_is_no_pass(kind: str, tmp_path: Path) -> None:
    if kind == "torch":
        pytest.importorskip("torch")
    new_adapter(tmp_path / "mine.py", kind)
    ended = qloracle(tmp_path, "check", "--backend", "mine:backend", "--profile", "smoke")
    assert ended.code == 1, str(ended)
    assert "claims nothing" in ended.out


@pytest.mark.parametrize("kind", KINDS)
def test_every_function_and_operation_is_in_the_template_and_its_stub_has_the_arguments_of_the_signature(
    kind: str,
) -> None:
    text = uncommented(template("mine", kind))
    defined: dict[str, object] = {}
    definitions = text[text.index("CLAIMS = []") : text.index("ENVIRONMENT")]
    exec(compile("def Claim(*a, **k): return a\nOPS = {}\n" + definitions, "template", "exec"), defined)  # noqa: S102
    for name, protocol in PROTOCOLS.items():
        stub = defined[name]
        assert callable(stub)
        expected = [p for p in inspect.signature(protocol.__call__).parameters if p != "self"]
        assert list(inspect.signature(stub).parameters) == expected, name
    claims = defined["CLAIMS"]
    assert isinstance(claims, list)
    assert {claim[0] for claim in claims} == set(OPERATIONS)


def test_a_filled_in_function_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    new_adapter(path, "numpy")
    body = "\n    return np.resize(np.append((codes.ravel()[::2] << 4), 0), (codes.size + 1) // 2).astype(np.uint8)\n"
    wrong = f"def pack_4bit(codes, *, pad_code):{body}\nOPS['pack_4bit'] = pack_4bit\nCLAIMS.append("
    wrong += "Claim('packing.pack', {'packed': 'exact'}))\n"
    path.write_text(path.read_text().replace("CLAIMS = []\n", "CLAIMS = []\n" + wrong))
    ended = qloracle(tmp_path, "check", "--backend", "mine:backend", "--profile", "smoke")
    assert ended.code == 1, str(ended)
    assert "packing.pack  packed  differs" in ended.out


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("mine")
    with pytest.raises(FileError, match="exists"):
        new_adapter(path, "numpy")
    assert path.read_text() == "mine"
    new_adapter(path, "numpy", overwrite=True)
    assert "OPS" in path.read_text()


@pytest.mark.parametrize("name", ["my-adapter.py", "adapter.txt", "adapter"])
def test_what_is_no_module_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="name is a module's"):
        new_adapter(tmp_path / name, "numpy")
