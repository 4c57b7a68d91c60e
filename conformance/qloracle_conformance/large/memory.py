"""How much memory there is, and how much a large call takes."""

from pathlib import Path

from qloracle_conformance.files import read_text
from qloracle_conformance.large.operations import LargeCase

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def needed(case: LargeCase) -> int:
    """Return an estimate in bytes: inputs twice, for a backend copies what it places; outputs twice, for fetching.

    What a backend needs for itself on the way is not in it.
    """
    return 2 * (case.bytes_in + case.bytes_out)


def available(meminfo: Path = _MEMINFO, group: Path = _GROUP) -> int | None:
    """Return the free bytes of the machine or of this process's control group, whichever is less; None if unknown."""
    found = [size for size in (_machine(meminfo), _group(group)) if size is not None]
    return min(found) if found else None


def _machine(meminfo: Path) -> int | None:
    if not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in read_text(meminfo).splitlines() if ":" in line)
    amount = lines.get("MemAvailable", "").split()
    return int(amount[0]) * 1024 if amount else None


def _group(group: Path) -> int | None:
    files = [group / name for name in ("memory.max", "memory.current")]
    if not all(file.is_file() for file in files):
        return None
    most, used = (read_text(file).strip() for file in files)
    return None if most == "max" else max(0, int(most) - int(used))
