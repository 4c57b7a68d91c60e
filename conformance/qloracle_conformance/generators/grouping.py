"""The groups of a weight that share a scale, in one of the claimed granularities."""

from qloracle.groups import group_shape
from qloracle_conformance.backend import Claim
from qloracle_conformance.generators.affine import CODE_RANGES
from qloracle_conformance.generators.draw import Draw

# Options of operations on a weight of a kind; the first value is the one of a claim that names none.
OPTIONS: dict[str, dict[str, tuple[object, ...]]] = {
    "int8": {"granularity": ("row", "tensor", "column", "block")},
    "affine": {"granularity": ("row", "group", "tensor", "column"), "code_range": tuple(CODE_RANGES)},
}


def claimed_groups(draw: Draw, claim: Claim, shape: tuple[int, ...]) -> tuple[str, int | None, tuple[int, ...]]:
    """Return a granularity, the size of its flat groups or None, and the shape of an array with one item a group."""
    granularity = str(draw.choice(claim.options.get("granularity", ("row",))))
    size = draw.choice(claim.block_sizes) if granularity in ("block", "group") else None
    return granularity, size, group_shape(shape, granularity, size, (granularity,))
