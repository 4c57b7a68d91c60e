"""The CuPy backend on the emulator, for the suite: ``--backend tests.gpu.emulator.conformance:emulated``."""

import os

import numpy as np

from qloracle_conformance import Backend
from qloracle_gpu.cupy.conformance import backend_on

from .launching import EmulatedLauncher


def emulated(device: str = "cpu") -> Backend:
    """Return the backend on the emulator; QLORACLE_EMULATOR_ORDER is forward, reversed or shuffled."""
    if device != "cpu":
        raise ValueError(f"the emulator runs on cpu only, got {device!r}")
    order = os.environ.get("QLORACLE_EMULATOR_ORDER", "forward")
    sanitize = os.environ.get("QLORACLE_EMULATOR_SANITIZE") == "1"
    launcher = EmulatedLauncher(order, sanitize=sanitize)
    environment = {
        "numpy": np.__version__,
        "device": "emulated on the CPU",
        "order": order,
        "sanitizers": str(sanitize),
    }
    return backend_on(launcher, np, np.asarray, "cupy (emulated)", "14", environment)
