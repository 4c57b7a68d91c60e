"""The project's data agree with the tree: what pyproject.toml names exists, and what is installed is pinned."""

import ast
import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
WHEEL_PACKAGES = [ROOT / name for name in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
SOURCE_ROOTS = [package.parent for package in WHEEL_PACKAGES]
ENTRY_POINTS = {**PROJECT["scripts"], **PROJECT["entry-points"]["qloracle.backends"]}


def load_tool(name: str) -> ModuleType:
    """Import a script of tools/, which is no package."""
    specification = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def defined_names(source: str) -> set[str]:
    """The names that a module binds at its top level."""
    names: set[str] = set()
    for node in ast.parse(source).body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign(targets=targets):
                names |= {target.id for target in targets if isinstance(target, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {alias.asname or alias.name for alias in aliases}
    return names


def entry_point_fault(target: str, roots: list[Path]) -> str | None:
    """Why `module:attribute` cannot be resolved below `roots`, or None."""
    module, _, attribute = target.partition(":")
    files = [root.joinpath(*module.split(".")) for root in roots]
    candidates = [path for base in files for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()]
    if not candidates:
        return f"{target}: no file holds the module {module}"
    if attribute not in defined_names(candidates[0].read_text(encoding="utf-8")):
        return f"{target}: {candidates[0].name} does not define {attribute}"
    return None


def normalized(requirement: str) -> str:
    """The distribution's name, as package indexes compare it."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None, f"no distribution name in {requirement!r}"
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def pins(text: str) -> list[str]:
    """The lines of a constraints file that are not empty and no comment."""
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def unpinned(project: dict[str, Any], constraints: list[str]) -> list[str]:
    """The distributions that `project` requires and `constraints` do not pin."""
    extras = project["optional-dependencies"].values()
    required = {normalized(line) for group in [project["dependencies"], *extras] for line in group}
    return sorted(required - {normalized(line) for line in constraints} - {normalized(project["name"])})


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_every_entry_point_names_a_module_that_defines_its_attribute(name: str) -> None:
    fault = entry_point_fault(ENTRY_POINTS[name], SOURCE_ROOTS)
    assert fault is None, fault


def test_an_entry_point_without_a_module_or_attribute_is_reported(tmp_path: Path) -> None:
    (tmp_path / "somebody").mkdir()
    (tmp_path / "somebody" / "adapter.py").write_text("backend = 1\n", encoding="utf-8")
    assert entry_point_fault("somebody.adapter:backend", [tmp_path]) is None
    assert "no file" in str(entry_point_fault("somebody.absent:backend", [tmp_path]))
    assert "does not define main" in str(entry_point_fault("somebody.adapter:main", [tmp_path]))


@pytest.mark.parametrize("package", WHEEL_PACKAGES, ids=lambda path: path.name)
def test_every_package_exists_and_says_that_it_is_typed(package: Path) -> None:
    assert (package / "__init__.py").is_file(), f"{package.name} has no __init__.py"
    assert (package / "py.typed").is_file(), f"{package.name} has no py.typed: type checkers would ignore its types"


@pytest.mark.parametrize("root", SOURCE_ROOTS, ids=lambda path: path.name)
def test_every_source_root_holds_one_package(root: Path) -> None:
    packages = [path.parent for path in root.glob("*/__init__.py")]
    assert packages == [package for package in WHEEL_PACKAGES if package.parent == root]


def test_the_source_roots_are_the_same_for_the_installer_and_the_type_checker() -> None:
    names = [root.name for root in SOURCE_ROOTS]
    assert PYPROJECT["tool"]["hatch"]["build"]["dev-mode-dirs"] == names
    assert PYPROJECT["tool"]["mypy"]["mypy_path"] == names
    assert [ROOT / name for name in PYPROJECT["tool"]["mypy"]["files"]] == WHEEL_PACKAGES


def test_the_license_and_the_readme_are_there() -> None:
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License")
    assert (ROOT / PROJECT["readme"]).is_file()


def test_every_constraint_is_an_exact_pin() -> None:
    lines = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    loose = [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.+]+(; python_version [<>=]+ \"3\.\d+\")?", line)]
    assert lines
    assert not loose, f"not an exact pin: {loose}"


def test_every_requirement_is_pinned() -> None:
    constraints = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    missing = unpinned(PROJECT, constraints)
    assert not missing, f"constraints.txt does not pin {', '.join(missing)}"


def test_a_requirement_without_a_pin_is_reported() -> None:
    project = {"name": "p", "dependencies": ["numpy>=2"], "optional-dependencies": {"dev": ["p[test]", "ml_dtypes"]}}
    assert unpinned(project, ["numpy==2.4.6"]) == ["ml-dtypes"]


def test_the_wheel_check_reports_a_missing_and_a_surplus_file() -> None:
    differences = load_tool("check_wheel").differences
    expected = {"qloracle/__init__.py", "qloracle/table.json"}
    metadata = {"qloracle-0.1.0.dist-info/METADATA"}
    assert differences(expected, expected | metadata) == []
    assert differences(expected, {"qloracle/__init__.py", "tests/test_x.py"} | metadata) == [
        "qloracle/table.json is in the tree but not in the wheel",
        "tests/test_x.py is in the wheel but belongs to no package",
    ]
