"""Literal worked examples of operations: small inputs that a reader can follow by hand.

An operation without one is explained with the plainest of its generated cases, see `worked`.
"""

from qloracle_conformance.examples import adapters, conversions, layers, memory, optimizers, quantizers
from qloracle_conformance.examples.clauses import CLAUSE_EXAMPLES as CLAUSE_EXAMPLES
from qloracle_conformance.examples.example import Example

_PARTS = (conversions, quantizers, layers, adapters, optimizers, memory)
EXAMPLES: dict[str, Example] = {name: example for part in _PARTS for name, example in part.EXAMPLES.items()}
