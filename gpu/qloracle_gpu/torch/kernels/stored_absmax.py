"""The absmax of blocks as kernels take them. Apart from the kernels, so that nobody loads Triton for a record."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PlainAbsmax:
    """The absmax of blocks as numbers."""

    absmax: Tensor  # float32, one a block, contiguous

    group = 0  # no nested group

    @property
    def pointers(self) -> tuple[Tensor | None, ...]:
        """Absmax; no codes, entries and offset."""
        return self.absmax, None, None, None


@dataclass(frozen=True)
class NestedAbsmax:
    """The absmax of blocks as codes, which a kernel restores where it needs them."""

    absmax: Tensor  # float32, one a nested group, contiguous
    codes: Tensor  # uint8, one a block, contiguous
    entries: Tensor  # float32, the codebook of `codes`
    offset: Tensor  # float32, 0-d
    group: int  # blocks in a nested group

    @property
    def pointers(self) -> tuple[Tensor | None, ...]:
        """Absmax, codes, entries and offset."""
        return self.absmax, self.codes, self.entries, self.offset


StoredAbsmax = PlainAbsmax | NestedAbsmax
