"""The memory that training adds to the weights: adapters, master weights, gradients and optimizer states.

Clauses: ``[footprint.states]``, ``[footprint.training]``. Activations, which depend on the
batch and on what is recomputed, and the allocator's own overhead are not counted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from qloracle.blocks import block_count
from qloracle.errors import reject_value, require_integer, require_one_of, require_shape
from qloracle.footprint.adapters import adapter_shapes
from qloracle.footprint.model import model_footprint, plain_bytes, require_tensors
from qloracle.footprint.schemes import PLAIN, Scheme, require_scheme
from qloracle.footprint.storage import FLOAT32_BYTES
from qloracle.footprint.tensors import ModelTensor
from qloracle.optim.adamw8bit import STATE_BLOCK_SIZE
from qloracle.targets import ALL_LINEAR

METHODS = ("full", "lora", "qlora")
OPTIMIZERS = ("adamw_32bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit")


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes at the moment of an optimizer step; the parts add up to the total."""

    trainable_parameters: int
    weights: int  # of the base model, scales and all
    adapters: int
    master_weights: int  # float32 copies of trained 16-bit weights
    gradients: int
    optimizer_states: int  # wherever they live
    host: int  # of the optimizer states, what waits in host memory

    @property
    def total(self) -> int:
        """All bytes, on the device and on the host."""
        return self.weights + self.adapters + self.master_weights + self.gradients + self.optimizer_states

    @property
    def device(self) -> int:
        """What the device holds."""
        return self.total - self.host


def state_bytes(sizes: Sequence[int], optimizer: str = "adamw_32bit") -> int:
    """Return the bytes of AdamW's two moments for trained tensors of the given sizes.

    32 bits: 8·Σ n. 8 bits: Σ 2·(n + 4·⌈n/256⌉) + 2048: codes, a float32 absmax for each block of 256, and the signed
    and the unsigned table once. Paging moves states and changes none.

    Parameters
    ----------
    sizes : sequence of int
        Elements of each trained tensor.
    optimizer : {"adamw_32bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"}

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If a size is no integer that is 0 or more, or the optimizer is unknown.

    Notes
    -----
    Clause ``[footprint.states]``. Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization", section
    2. Integers only.

    Examples
    --------
    >>> state_bytes([1000, 24]), state_bytes([1000, 24], "adamw_8bit")
    (8192, 4136)
    """
    require_one_of("optimizer", optimizer, OPTIMIZERS)
    counts = require_shape(sizes, "sizes")
    if optimizer.endswith("32bit"):
        return 2 * FLOAT32_BYTES * sum(counts)
    tables = 2 * 256 * FLOAT32_BYTES if counts else 0
    return tables + sum(2 * (n + FLOAT32_BYTES * block_count(n, STATE_BLOCK_SIZE)) for n in counts)


def training_memory(
    tensors: Sequence[ModelTensor],
    method: str,
    *,
    scheme: str | Scheme | None = None,
    rank: int | None = None,
    targets: Sequence[str] | str = ALL_LINEAR,
    adapter_format: str = "float32",
    optimizer: str = "adamw_32bit",
    master_weights: bool = True,
    device_budget: int = 0,
) -> TrainingMemory:
    """Count the bytes of full fine-tuning, LoRA or QLoRA at the moment of an optimizer step.

    total = weights + adapters + master weights + gradients + states. Trained are all parameters ("full") or the
    adapters alone; a gradient has the format of what it belongs to; a trained 16-bit number has a float32 master.

    Parameters
    ----------
    tensors : sequence of ModelTensor
    method : {"full", "lora", "qlora"}
    scheme : str or Scheme, optional
        Of the base model: a plain format for "full" and "lora" (bfloat16 if not given), a quantized one for "qlora"
        ("nf4_double" if not given).
    rank, targets
        Of the adapters, see `adapter_shapes`; the rank is required for "lora" and "qlora" and excluded for "full".
    adapter_format : {"float32", "float16", "bfloat16"}
    optimizer : {"adamw_32bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"}
    master_weights : bool
        Whether trained 16-bit weights have float32 copies.
    device_budget : int
        Bytes of states that a paged optimizer keeps on the device.

    Returns
    -------
    TrainingMemory

    Raises
    ------
    ArgumentTypeError, ArgumentValueError
        If an argument is unknown, or does not go with the method.

    Notes
    -----
    Clause ``[footprint.training]``. Source: Dettmers et al. 2023, "QLoRA", section 2, "Memory Requirement of
    Parameter-Efficient Finetuning". Integers only.

    Examples
    --------
    >>> from qloracle.footprint.configs import config_tensors
    >>> gpt2 = config_tensors({"model_type": "gpt2"})
    >>> for method, rank in (("full", None), ("lora", 8), ("qlora", 8)):
    ...     memory = training_memory(gpt2, method, rank=rank)
    ...     print(f"{method:5} trains {memory.trainable_parameters:11,} in {memory.total:13,} bytes")
    full  trains 124,439,808 in 2,003,619,864 bytes
    lora  trains   1,179,648 in   280,336,920 bytes
    qlora trains   1,179,648 in   154,284,056 bytes
    """
    base = _base_scheme(method, scheme)
    found = require_tensors(tensors)
    weights = model_footprint(found, base)
    if method == "full":
        if rank is not None:
            reject_value("rank", "None for full fine-tuning", rank)
        sizes = [t.size for t in found if t.kind != "buffer"]
        width = plain_bytes(base.name, "scheme")
    else:
        if rank is None:
            reject_value("rank", "given for LoRA and QLoRA", None)
        sizes = [rows * columns for rows, columns in adapter_shapes(found, rank, targets)]
        width = plain_bytes(adapter_format, "adapter_format")
    trained = sum(sizes)
    states = state_bytes(sizes, optimizer)
    budget = require_integer("device_budget", device_budget, "a number of bytes, 0 or more")
    if budget < 0:
        reject_value("device_budget", "a number of bytes, 0 or more", budget)
    return TrainingMemory(
        trainable_parameters=trained,
        weights=weights.total,
        adapters=0 if method == "full" else trained * width,
        master_weights=FLOAT32_BYTES * trained if master_weights and width < FLOAT32_BYTES else 0,
        gradients=trained * width,
        optimizer_states=states,
        host=max(states - budget, 0) if optimizer.startswith("paged") else 0,
    )


def _base_scheme(method: str, scheme: str | Scheme | None) -> Scheme:
    require_one_of("method", method, METHODS)
    base = require_scheme(("nf4_double" if method == "qlora" else "bfloat16") if scheme is None else scheme)
    if (base.name in PLAIN) == (method == "qlora"):
        kind = "a quantized scheme for QLoRA" if method == "qlora" else "a plain format for full fine-tuning and LoRA"
        reject_value("scheme", kind, base.name)
    return base
