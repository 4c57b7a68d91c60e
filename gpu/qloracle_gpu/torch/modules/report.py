"""How many parameters of a model train."""

from dataclasses import dataclass

from torch import nn

from qloracle_gpu.torch.modules.quantized_tensor import QuantizedTensor
from qloracle_gpu.torch.qlora import shape_of


@dataclass(frozen=True)
class TrainableParameters:
    """Counts of the parameters of a model; prints as a row of a table.

    Examples
    --------
    >>> print(TrainableParameters(trainable=5_000_000, total=40_005_000_000))
    trainable      5,000,000 | all   40,005,000,000 | trainable  0.0125 %
    """

    trainable: int
    total: int  # adapters included; of a quantized weight each value counts, however many of them a byte holds

    @property
    def percent(self) -> float:
        """The share that trains, in percent of all."""
        return 100 * self.trainable / self.total if self.total else 0.0

    def __str__(self) -> str:
        """Return the row."""
        return f"trainable {self.trainable:>14,} | all {self.total:>16,} | trainable {self.percent:>7.4f} %"


def trainable_parameters(model: nn.Module) -> TrainableParameters:
    """Count the parameters of a model, shared ones once.

    Clause ``[adapters.count]``.

    Examples
    --------
    >>> from qloracle_gpu.torch.modules import LoraConfig, apply_lora
    >>> model = apply_lora(nn.Sequential(nn.Linear(100, 50, bias=False)), LoraConfig(["0"], rank=2))
    >>> trainable_parameters(model)
    TrainableParameters(trainable=300, total=5300)
    """
    parameters = list(model.parameters())
    stored = [module for module in model.modules() if isinstance(module, QuantizedTensor)]
    quantized = sum(rows * columns for rows, columns in (shape_of(module.record()) for module in stored))
    return TrainableParameters(
        trainable=sum(p.numel() for p in parameters if p.requires_grad),
        total=sum(p.numel() for p in parameters) + quantized,
    )
