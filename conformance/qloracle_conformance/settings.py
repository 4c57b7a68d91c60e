"""What a run was asked for."""

from dataclasses import dataclass
from pathlib import Path

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.usage import UsageError


@dataclass(frozen=True)
class Settings:
    """What a run was asked for."""

    backend: str
    device: str = "cpu"
    only: str | None = None
    stage: str | None = None
    profile: str = "default"
    explore: bool = False
    seed: int = 0
    weights: str | None = None
    report: Path | None = None
    witnesses: Path = Path("witnesses")
    timeout: float = 60.0  # seconds that one call may take
    jobs: int = 1  # processes that judge
    shard: str | None = None  # "i/n": only every n-th task, from the i-th on
    max_time: float | None = None  # seconds after which no further task is begun
    deviations: Path | None = None  # TOML file of known deviations


def require_specification(version: str | None) -> None:
    """Raise UsageError if verdicts by another version of the specification are asked for."""
    if version not in (None, SPECIFICATION_VERSION):
        raise UsageError(
            f"--spec must be {SPECIFICATION_VERSION}, the specification that this suite judges by, got {version}"
        )
