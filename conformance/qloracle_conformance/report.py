"""The report: JSON lines with a header, one line for each property and matrix, and a footer. No footer: cut short."""

import json
import math
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from qloracle import SPECIFICATION_VERSION
from qloracle_conformance.backend import BackendInfo
from qloracle_conformance.files import FileError
from qloracle_conformance.report_schema import FORMAT
from qloracle_conformance.weights import MatrixResult
from qloracle_conformance.worker import THREADS


class Report:
    """A report file that grows under a provisional name and gets its own when the run ends, however it ends."""

    def __init__(self, path: Path | None) -> None:
        """Open the file, so that an unwritable path is known before the run.

        Raises
        ------
        FileError
            If the file cannot be written.
        """
        self.path = path
        self._file: IO[str] | None = None
        if path is not None:
            if path.exists() and not path.is_file():  # renaming over a device or a folder would lose one of the two
                raise FileError(f"cannot write report {path}: it exists and is no regular file")
            self._partial = path.with_name(path.name + ".partial")
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._partial.open("w", encoding="utf-8")
            except OSError as error:
                raise FileError(f"cannot write report {path}: {error.strerror}") from error

    def line(self, kind: str, content: Mapping[str, Any]) -> None:
        """Write one line."""
        if self._file is not None:
            text = json.dumps({"type": kind, **content}, ensure_ascii=False, allow_nan=False)
            # What a backend says may hold half a surrogate pair, which no file holds.
            self._file.write(text.encode("utf-8", "replace").decode("utf-8") + "\n")
            self._file.flush()

    def close(self) -> None:
        """Give the file its name."""
        if self._file is not None and self.path is not None:
            self._file.close()
            self._partial.replace(self.path)
            self._file = None


def header(info: BackendInfo, name: str, device: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was judged, with what, and where."""
    smallest = np.float32(1e-45)
    return {
        "format": FORMAT,
        "specification": SPECIFICATION_VERSION,
        "backend": {"name": info.name, "requested": name, "version": info.version, "device": device},
        "environment": dict(sorted(info.environment.items())),
        "settings": dict(settings),
        "suite": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
            "worker_threads": THREADS,
            "subnormals_kept": bool(smallest * np.float32(1) > 0),
        },
        "claims": [
            {"operation": c.operation, "levels": dict(c.levels), "basis": c.basis, "source": c.source,
             "roundings": vars(c.roundings)} for c in info.claims
        ],
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def matrix_line(result: MatrixResult) -> dict[str, Any]:
    """Return what was measured on one matrix."""
    return {
        "name": result.name,
        "shape": list(result.shape),
        "dtype": result.dtype,
        "not_finite": result.not_finite,
        "bits_per_weight": {k: round(v, 4) for k, v in result.bits.items()},
        # JSON has neither NaN (nothing finite to measure) nor infinity (restored without any error).
        "sqnr_db": {k: round(v, 3) if math.isfinite(v) else str(v) for k, v in result.sqnr.items()},
    }
