"""The conformance suite: judges anybody's backend of quantized fine-tuning kernels against the reference.

`Backend` and `Claim` are what the author of an adapter needs; `protocols` documents the signature of every operation.
"""

from qloracle.bounds import Roundings
from qloracle_conformance.backend import Backend, Claim

__all__ = ["Backend", "Claim", "Roundings"]
