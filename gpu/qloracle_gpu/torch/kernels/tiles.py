"""How the work of a product is cut into tiles.

A tile is chosen by the shape alone and never by timing, so that equal inputs give equal bits in every run.
"""

from dataclasses import dataclass

import triton
import triton.language as tl

BAND = 8  # tiles of rows that are worked on together, so that they share tiles of columns in the cache


@triton.jit
def banded_tile(rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BAND: tl.constexpr):
    """Return the rows of this program's tile, and its first column, both as 64-bit numbers."""
    program = tl.program_id(0).to(tl.int64)
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    first = program // (BAND * across) * BAND
    band = tl.minimum(down - first, BAND)
    row = (first + program % (BAND * across) % band) * ROWS
    return row + tl.arange(0, ROWS), program % (BAND * across) // band * COLUMNS


@dataclass(frozen=True)
class Tile:
    """What one program works on."""

    rows: int
    columns: int
    inner: int  # of the inner dimension at once
    warps: int

    @property
    def constants(self) -> dict[str, int]:
        """What a kernel is compiled with."""
        return {"ROWS": self.rows, "COLUMNS": self.columns, "INNER": self.inner, "BAND": BAND}

    def programs(self, rows: int, columns: int) -> int:
        """Return how many tiles a result has."""
        return -(-rows // self.rows) * -(-columns // self.columns)


NARROW = 32  # columns up to which a result has the few of a low rank
# For matrix units, and for products in float32: a tile for each number of rows, and first for results of few columns.
MATRIX_TILES = (Tile(32, 16, 128, 4), Tile(16, 64, 64, 4), Tile(64, 64, 64, 4), Tile(128, 128, 64, 8))
FLOAT32_TILES = (Tile(32, 16, 32, 4), Tile(16, 64, 32, 4), Tile(64, 64, 16, 8))


def tile_of(rows: int, columns: int, operand: str, *, roomy: bool = False) -> Tile:
    """Return the tile of a product whose operands have a format; not the largest one where a tile must leave room."""
    narrow, *wide = FLOAT32_TILES if operand == "float32" else MATRIX_TILES
    if columns <= NARROW:
        return narrow
    fitting = wide[:2] if roomy else wide
    return next((tile for tile in fitting if rows <= tile.rows), fitting[-1])
