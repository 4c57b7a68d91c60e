"""The files of known deviations that come with the suite: one for each library and version that it was judged with."""

from pathlib import Path

from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.usage import UsageError

SHIPPED = "shipped"  # instead of a path
FOLDER = Path(__file__).parent / "deviations_of"


def shipped_files() -> dict[str, dict[str, Path]]:
    """Return all files by name of the backend and version."""
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(FOLDER.glob("*/*.toml")):
        found.setdefault(path.parent.name, {})[path.stem] = path
    return found


def shipped_deviations(info: BackendInfo, device: str) -> Path:
    """Return the file for a backend's version; what stands behind a "+" in a version is how it was built.

    Raises
    ------
    UsageError
        If there is none for the backend, its version, or its device.
    """
    versions = shipped_files().get(info.name, {})
    if not versions:
        known = ", ".join(shipped_files()) or "none"
        raise UsageError(f"no deviations of {info.name!r} are shipped; there are those of: {known}")
    path = versions.get(info.version.partition("+")[0])
    if path is None:
        raise UsageError(
            f"no deviations of {info.name} {info.version} are shipped; there are those of {', '.join(versions)}:"
            " give the path of a file to use one of another version"
        )
    if device.partition(":")[0] != "cpu":
        raise UsageError(f"the shipped deviations of {info.name} were seen on the cpu, not on {device!r}; give a path")
    return path


def deviations_path(given: Path, info: BackendInfo, device: str) -> Path:
    """Return the file that --deviations names; "shipped" is a name, "./shipped" a path.

    Raises
    ------
    UsageError
        As `shipped_deviations`.
    """
    return shipped_deviations(info, device) if str(given) == SHIPPED else given
