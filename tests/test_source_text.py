"""No file compares with a tolerance, names a machine's path or a registry's host, or is marked unfinished.

Every checker is a function of source text, so that a planted violation proves that it can fail.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

TOLERANCE_NAMES = {"allclose", "approx", "isclose", "assert_allclose", "assert_almost_equal", "assert_close"}
TOLERANCE_KEYWORDS = {"atol", "rtol", "abs_tol", "rel_tol"}

# Written so that no pattern matches its own source.
FORBIDDEN_TEXT = {
    "a path of one machine": r"(?<![\w.:~/-])/(?:work|root|home|tmp|Users|mnt)/\w|\b[A-Z]:\\Users",
    "a registry's host name": r"pypi\.org|pythonhosted\.org|download\.pytorch\.org|npmjs\.org|deb\.debian\.org",
    "a mark of unfinished work": r"\b(?:TO[D]O|FIX[M]E|XX[X]|HA[C]K)\b",
}


def tolerance_violations(source: str, name: str) -> list[str]:
    """One sentence for each comparison with a tolerance."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.alias(name=word) if word in TOLERANCE_NAMES:
                found.append(f"{name}, line {node.lineno}: {word}; judge with an allowed interval")
            case ast.keyword(arg=str(word)) | ast.arg(arg=word) if word in TOLERANCE_KEYWORDS:
                found.append(f"{name}, line {node.lineno}: {word}=; judge with an allowed interval")
    return found


def text_violations(text: str, name: str) -> list[str]:
    """One sentence for each line that holds a machine's path, a registry's host or a mark of unfinished work."""
    return [
        f"{name}, line {number}: {what}: {line.strip()}"
        for number, line in enumerate(text.splitlines(), start=1)
        for what, pattern in FORBIDDEN_TEXT.items()
        if re.search(pattern, line)
    ]


def repository_files() -> list[Path]:
    """Every file that git tracks or would track."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [path for name in listing.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_python_file_compares_with_a_tolerance() -> None:
    paths = [path for path in repository_files() if path.suffix == ".py"]
    assert Path(__file__).resolve() in paths, "the listing of the repository lacks this very file"
    found = [line for path in paths for line in tolerance_violations(path.read_text(encoding="utf-8"), path.name)]
    assert not found, "\n".join(found)


def test_no_file_holds_machine_paths_registry_hosts_or_unfinished_marks() -> None:
    contents = {path: path.read_bytes() for path in repository_files()}
    texts = {path: data.decode("utf-8") for path, data in contents.items() if b"\0" not in data}
    found = [line for path, text in texts.items() for line in text_violations(text, str(path.relative_to(ROOT)))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "np.allclose(a, b)",
        "from pytest import approx",
        "judge(a, b, atol=0)",
        "def close(a, b, rtol): ...",
        "torch.testing.assert_close(a, b)",
    ],
)
def test_a_planted_tolerance_is_reported(source: str) -> None:
    assert len(tolerance_violations(source, "planted")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "see /ho" + "me/me/x",
        "open('/tm" + "p/x')",
        "C:\\Us" + "ers",
        "https://pypi" + ".org/simple",
        "# TO" + "DO: later",
    ],
)
def test_a_planted_forbidden_text_is_reported(line: str) -> None:
    assert len(text_violations(f"first\n{line}", "planted")) == 1


@pytest.mark.parametrize("line", ["https://example.com/home/page", "#!/usr/bin/env bash", "0xXXXX", "docs/home/x"])
def test_harmless_text_is_not_reported(line: str) -> None:
    assert text_violations(line, "planted") == []
