"""A weight as kernels take it: codes with what restores them, or numbers.

Apart from the kernels, so that nobody loads Triton for a record.
"""

from dataclasses import dataclass
from math import gcd

from torch import Tensor

from qloracle_gpu.torch.kernels.stored_absmax import StoredAbsmax

LARGEST_GROUP = 64


@dataclass(frozen=True)
class StoredWeight:
    """A matrix of shape (lines, length); all tensors are contiguous."""

    data: Tensor  # uint8 codes of a codebook, int8 codes, or numbers of float32, float16 or bfloat16
    shape: tuple[int, int]
    entries: Tensor | None = None  # float32, the codebook
    absmax: StoredAbsmax | None = None
    block_size: int | None = None  # elements in a row that share an absmax; None: those of a column do
    packed: bool = False  # whether two codes share a byte
    rounding: str = "float32"  # what a restored number is rounded to before a product

    @property
    def kind(self) -> str:
        """How numbers are stored, as kernels name it."""
        if self.absmax is None:
            return "numbers"
        if self.entries is None:
            return "int8" if self.block_size else "int8 columns"
        if not self.packed:
            return "codes"
        return "straddling pairs" if self.shape[1] % 2 else "pairs"

    @property
    def pointers(self) -> tuple[Tensor | None, ...]:
        """Entries, and the four of the absmax."""
        return self.entries, *((None,) * 4 if self.absmax is None else self.absmax.pointers)

    @property
    def table(self) -> int:
        """How many entries the codebook has: 16 or 256, none without one."""
        return 0 if self.entries is None else self.entries.numel()

    @property
    def row_bytes(self) -> int:
        """How many bytes a line of pairs takes: a number apart, so that the compiler sees what divides it."""
        return self.shape[1] // 2 if self.packed else self.shape[1]

    def group(self, places: int = LARGEST_GROUP) -> int:
        """Return how many neighbours in a line share an absmax for certain: a power of two, at most `places`."""
        if self.absmax is None:
            return 1
        common = gcd(self.shape[1], self.block_size or LARGEST_GROUP)
        return min(common & -common, LARGEST_GROUP, places)

    def constants(self, places: int) -> dict[str, object]:
        """Return what a kernel that reads `places` neighbours at once is compiled with."""
        group = self.group(places)
        return {
            "KIND": self.kind,
            "PARTS": (self.block_size or group) // group,
            "GROUP": group,
            "NESTED": 0 if self.absmax is None else self.absmax.group,
            "ROUNDED": self.rounding,
        }
