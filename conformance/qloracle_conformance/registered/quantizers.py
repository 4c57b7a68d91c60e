"""What the operations of all quantizers share."""

from qloracle_conformance.generators import extents, quantizing
from qloracle_conformance.generators.case import Generator
from qloracle_conformance.generators.quantizing import Quantizer


def quantizer_families(quantizer: Quantizer) -> dict[str, Generator]:
    """Return all families of a quantizer of plain tensors."""
    return quantizing.for_quantizer({**quantizing.FAMILIES, **extents.FAMILIES}, quantizer)
