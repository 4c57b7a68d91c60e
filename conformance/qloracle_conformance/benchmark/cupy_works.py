"""The works of the CuPy backend."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import qloracle
from qloracle_conformance.benchmark.torch_works import BLOCK, BYTES, needed
from qloracle_conformance.benchmark.works import BenchmarkError, Call, Work


class CupyWorks:
    """Makes the works of the current device."""

    def __init__(self) -> None:
        """Import what there is."""
        self.cupy, self.own = needed("cupy", "cupy"), needed("qloracle_gpu.cupy", "cupy")

    def elementwise(self, elements: int) -> Iterator[Work]:
        """Yield conversions, quantization and dequantization of a tensor of so many elements."""
        for target in ("bfloat16", "float8_e4m3fn"):
            makers = {"cupy": partial(self._encode, elements, target)}
            yield Work(f"{target}.encode", "float32", elements, makers, bytes=elements * (4.0 + BYTES[target]))
        for codebook in ("nf4", "fp4", "dynamic_signed"):
            code = 1.0 if codebook == "dynamic_signed" else 0.5
            for fmt in ("float32", "bfloat16"):
                moved = elements * (code + 4 / BLOCK + BYTES[fmt])
                options = {"codebook": codebook, "block_size": BLOCK}
                yield from self._pair(codebook, "blockwise", fmt, elements, moved, options)
        moved = elements * (0.5 + 1 / BLOCK + BYTES["bfloat16"])
        yield from self._pair("nf4_double", "double", "bfloat16", elements, moved, {"block_size": BLOCK})
        for fmt in ("float32", "bfloat16"):
            yield from self._pair(
                "int8_row", "int8", fmt, elements, elements * (1.0 + BYTES[fmt]), {"granularity": "row"}
            )

    def products(self, features: int, rows: int, hidden: int) -> Iterator[Work]:  # noqa: ARG002  # products of many
        """Yield the product of one row with an NF4 weight; rows are cuBLAS's."""
        weight = features * features * (0.5 + 4 / BLOCK)
        makers = {"cupy": partial(self._product, features)}
        yield Work("nf4.matmul, 1 row", "bfloat16", features**2, makers, bytes=weight + 4.0 * features)

    def normal(self, shape: int | tuple[int, ...], fmt: str) -> tuple[Any, dict[str, str]]:
        """Return normally distributed numbers, and how the backend is told their format."""
        values = self.cupy.random.standard_normal(shape, dtype=self.cupy.float32)
        return (values, {}) if fmt == "float32" else (self.own.encode(values, fmt), {"fmt": fmt})

    def _encode(self, elements: int, target: str) -> Call:
        return partial(self.own.encode, self.normal(elements, "float32")[0], target)

    def _pair(
        self, name: str, kind: str, fmt: str, elements: int, moved: float, options: dict[str, Any]
    ) -> Iterator[Work]:
        shape = (elements // 4096, 4096) if elements >= 1 << 14 else (1, elements)

        def quantize() -> Call:
            x, told = self.normal(shape, fmt)
            return partial(getattr(self.own, f"quantize_{kind}"), x, **options, **told)

        def dequantize() -> Call:
            return partial(getattr(self.own, f"dequantize_{kind}"), quantize()())

        yield Work(f"{name}.quantize", fmt, elements, {"cupy": quantize}, bytes=moved)
        yield Work(f"{name}.dequantize", fmt, elements, {"cupy": dequantize}, bytes=moved)

    def _product(self, features: int) -> Call:
        w, told = self.normal((features, features), "bfloat16")
        x, _ = self.normal((1, features), "bfloat16")
        return partial(self.own.quantized_matmul, x, self.own.quantize_blockwise(w, block_size=BLOCK, **told), **told)


def check(works: CupyWorks, elements: int = 1 << 16) -> None:
    """Refuse to time a backend whose NF4 output differs from the reference's in a single bit.

    Raises
    ------
    BenchmarkError
        If it does.
    """
    normal = np.random.default_rng(0).standard_normal(elements, np.float32)
    plain, mine = qloracle.quantize_blockwise(normal), works.own.quantize_blockwise(works.cupy.asarray(normal))
    restored = works.own.dequantize_blockwise(mine)
    for what, got, wanted in (
        ("codes", mine.data, plain.data), ("absmax", mine.absmax, plain.absmax),
        ("values", restored, qloracle.dequantize_blockwise(plain)),
    ):  # fmt: skip
        if works.cupy.asnumpy(got).tobytes() != wanted.tobytes():
            raise BenchmarkError(f"not timed: NF4 {what} differ between the backend and the reference")
