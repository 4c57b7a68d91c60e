"""Build the wheel, compare its files with the tree, install it with its base dependencies alone, and start it."""

import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def expected_files(root: Path) -> set[str]:
    """Every file of the packages that pyproject.toml names, as the wheel calls it: data files too."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    packages = [root / name for name in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
    return {
        path.relative_to(package.parent).as_posix()
        for package in packages
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def differences(expected: Collection[str], found: Collection[str]) -> list[str]:
    """One sentence for each file that the wheel lacks or should not have; its metadata folder is free."""
    payload = {name for name in found if not name.split("/")[0].endswith(".dist-info")}
    return [
        *(f"{name} is in the tree but not in the wheel" for name in sorted(set(expected) - payload)),
        *(f"{name} is in the wheel but belongs to no package" for name in sorted(payload - set(expected))),
    ]


def build_wheel(folder: Path) -> Path:
    """Build with the environment's own pinned hatchling."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


def try_installed(wheel: Path, folder: Path) -> None:
    """Install `wheel` in a fresh environment, outside the tree, and start what a user starts first."""
    environment = folder / "fresh"
    # PYTHONPATH could lead back to the tree and hide what the wheel lacks.
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*command: str) -> None:
        subprocess.run(command, check=True, cwd=folder, env=clean)

    run(sys.executable, "-m", "venv", str(environment))
    python = str(environment / "bin" / "python")
    run(python, "-m", "pip", "install", "-qq", "--constraint", str(ROOT / "constraints.txt"), str(wheel))
    run(python, str(ROOT / "tools" / "check_import.py"))
    run(str(environment / "bin" / "qloracle"), "--help")


def main() -> str | None:
    """Every check; the sentences that say what is wrong, or None."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build_wheel(folder)
        with zipfile.ZipFile(wheel) as archive:
            found = archive.namelist()
        if wrong := differences(expected_files(ROOT), found):
            return "\n".join(wrong)
        try_installed(wheel, folder)
    print(f"{wheel.name}: {len(found)} files, all of them of the packages; installs and starts with base dependencies")
    return None


if __name__ == "__main__":
    try:
        sys.exit(main())
    except subprocess.CalledProcessError as error:
        sys.exit(f"wheel check: exit code {error.returncode} from: {' '.join(error.cmd)}")
