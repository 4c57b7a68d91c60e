"""Where a generator's choices come from: a counter-based generator for verdicts, Hypothesis for search."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol, TypeVar
from zlib import crc32

import numpy as np

Option = TypeVar("Option")


class Draw(Protocol):
    """The choices that a generator may ask for; what it returns depends on nothing else."""

    def choice(self, options: Sequence[Option]) -> Option:
        """Return one of the options; simpler ones come first."""
        ...

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high, both included; smaller is simpler."""
        ...

    def random(self) -> np.random.Generator:
        """Return a random generator for the contents of arrays."""
        ...


@lru_cache(maxsize=1 << 12)
def _order(key: int, choice: int, epoch: int, size: int) -> tuple[int, ...]:
    """Return the order in which a choice takes its options; cases that follow one another share it."""
    shuffle = np.random.Philox(key=key, counter=[0, 1, choice, epoch])
    return tuple(np.random.Generator(shuffle).permutation(size).tolist())


class CounterDraw:
    """Choices of case `index` of a property: a pure function of both, whatever else was generated before."""

    def __init__(self, name: str, index: int, seed: int = 0) -> None:
        """Key a Philox generator by the property's name and the seed, and count by the index."""
        self._key = crc32(name.encode()) << 32 | (seed & 0xFFFFFFFF)
        self._index = index
        self._choices = 0
        self._generator = np.random.Generator(np.random.Philox(key=self._key, counter=[0, 0, 0, index]))

    def choice(self, options: Sequence[Option]) -> Option:
        """Return one option; any run of len(options) indices covers all of them, each run in another order."""
        epoch, place = divmod(self._index, len(options))
        self._choices += 1
        return options[_order(self._key, self._choices, epoch, len(options))[place]]

    def integer(self, low: int, high: int) -> int:
        """Return an integer from low to high."""
        return int(self._generator.integers(low, high + 1))

    def random(self) -> np.random.Generator:
        """Return the generator."""
        return self._generator
