"""Call every loop on data that end where their memory ends, with a library built under sanitizers. Run by a test."""

import ctypes
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np

SIZES = (1, 2, 3, 31, 32, 33, 64, 65, 511, 513, 1030)
BLOCK_SIZES = (1, 2, 3, 33, 64, 1030)
TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}
CELLS = 1 << 15
MOST_ROWS = 32


def library(folder: Path) -> ctypes.CDLL:
    """Compile the source of the folder with guards around every access."""
    guards = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    flags = ("-std=c11", "-g", "-O1", "-march=native", *guards, "-shared", "-fPIC")
    subprocess.run(["cc", *flags, str(folder / "loops.c"), "-o", str(folder / "loops.so"), "-lm"], check=True)
    return ctypes.CDLL(str(folder / "loops.so"))


def run(loops: ctypes.CDLL, name: str, *arguments: np.ndarray | int) -> None:
    getattr(loops, name)(*(
        ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_void_p(value.ctypes.data) for value in arguments
    ))  # fmt: skip


def call_products(loops: ctypes.CDLL, name: str, rng: np.random.Generator, rows: int) -> int:
    """Multiply some rows with weights whose codes, scales and results end where memory ends."""
    shapes = ((1, 32, 32), (3, 64, 32), (5, 256, 64))
    for outputs, inner, block_size in shapes:
        codes = rng.integers(0, 256, outputs * inner // 2, dtype=np.uint8)
        entries, absmax = rng.standard_normal(16), rng.standard_normal(outputs * inner // block_size)
        x, y = rng.standard_normal((rows, inner)).astype(np.float32), np.empty((rows, outputs), np.float32)
        run(loops, name, codes, entries.astype(np.float32), absmax.astype(np.float32), block_size, x, rows, inner,
            outputs, y, outputs)  # fmt: skip
    return len(shapes)


def call_all(loops: ctypes.CDLL) -> int:
    rng, calls = np.random.default_rng(0), 0
    cells = rng.integers(-127, 127, 2 * CELLS + 3, dtype=np.int16)
    cells[::7] = np.iinfo(np.int16).min
    entries, table = rng.standard_normal(256).astype(np.float32), rng.integers(0, 256, 1 << 17, dtype=np.uint8)
    for (fmt, dtype), size in product(TYPES.items(), SIZES):
        words = np.frombuffer(rng.bytes(size * np.dtype(dtype).itemsize), dtype).copy()
        codes = rng.integers(0, 256, size, dtype=np.uint8)
        for block_size in (b for b in BLOCK_SIZES if b <= size):
            rows, blocks = size // block_size, -(-size // block_size)
            absmax = rng.standard_normal(blocks).astype(np.float32)
            found = np.empty(rows, np.float32)
            run(loops, f"row_absmax_{fmt}", words[: rows * block_size].copy(), rows, block_size, found)
            values = np.empty(size, dtype)
            run(loops, f"dequantize_4bit_{fmt}", codes[: (size + 1) // 2].copy(), entries[:16].copy(), absmax,
                block_size, size, values)  # fmt: skip
            run(loops, f"dequantize_8bit_{fmt}", codes, entries, absmax, block_size, size, values)
            shape = rows, block_size
            for steps, count in (((1, 0), rows), ((0, 1), block_size), ((0, 0), 1)):
                divisors = np.abs(rng.standard_normal(count)).astype(np.float32)
                matrix, out = words[: rows * block_size].copy(), np.empty(rows * block_size, np.uint8)
                undecided = np.empty(out.size + 1, np.int64)
                run(loops, f"guess_{fmt}", matrix, divisors, *steps, cells, CELLS, *shape, out, undecided)
                restored = np.empty(out.size, dtype)
                run(loops, f"dequantize_int8_{fmt}", out, divisors, *steps, *shape, restored)
                calls += 2
            calls += 3
        if hasattr(loops, f"product_4bit_{fmt}") and size < MOST_ROWS:
            calls += call_products(loops, f"product_4bit_{fmt}", rng, size)
        if fmt == "float32":
            run(loops, "encode_8bit", words, table, size, np.empty(size, np.uint8))
            calls += 1
    return calls


if __name__ == "__main__":
    print(call_all(library(Path(sys.argv[1]))), "calls")  # noqa: T201
