"""PEFT judged from outside: its layers on ``nn.Linear``, ``Conv1D`` and ``nn.Embedding``, and on bitsandbytes' layers.

One backend for each kind of base layer and format of its weights, for a claim declares the roundings of one format.
Adapters are float32, as ``get_peft_model`` makes them (``autocast_adapter_dtype``) whatever the base layer computes in.
Loading PEFT takes seconds; it is loaded when a backend is made.
"""

from functools import partial

from qloracle_conformance.backend import Backend


def make_backend(device: str = "cpu", *, layers: str = "float", dtype: str = "float32") -> Backend:
    """Return the backend of PEFT on one kind of base layer whose weights and inputs have one format.

    Raises
    ------
    ValueError
        For another device than "cpu": bitsandbytes has other kernels there, of which nothing is claimed yet.
    """
    if device != "cpu":
        raise ValueError(f"the adapter of PEFT claims something on cpu only, got {device!r}")
    from qloracle_conformance.adapters.peft.made import made_backend

    return made_backend(layers, dtype)


backend = partial(make_backend, layers="float", dtype="float32")
backend_bfloat16 = partial(make_backend, layers="float", dtype="bfloat16")
backend_float16 = partial(make_backend, layers="float", dtype="float16")
backend_4bit = partial(make_backend, layers="4bit", dtype="float32")
backend_8bit = partial(make_backend, layers="8bit", dtype="float32")
