"""Shards: which part of a run's tasks one machine does, the same for every machine."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from qloracle_conformance.usage import UsageError

Member = TypeVar("Member")


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1."""

    index: int
    count: int

    def of(self, members: Sequence[Member]) -> list[Member]:
        """Return every count-th member from the index-th on, so that slow neighbours are shared out."""
        return list(members[self.index - 1 :: self.count])

    def __str__(self) -> str:
        """Return the shard as it is written."""
        return f"{self.index}/{self.count}"


def parse_shard(text: str) -> Shard:
    """Read "2/8".

    Raises
    ------
    UsageError
        If it is nothing of the kind.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    shard = Shard(int(found[1]), int(found[2])) if found else Shard(0, 0)
    if not 1 <= shard.index <= shard.count:
        raise UsageError(f"shard must be i/n with i from 1 to n, got {text!r}")
    return shard
