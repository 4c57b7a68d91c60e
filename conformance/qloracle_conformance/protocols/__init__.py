"""The signature of every function that a backend may offer: what its author implements.

Arrays are native to the backend (`Backend.place` makes them); options are plain Python values. A function returns one
native array, or a tuple of them in the order given. Every rule stands in the reference under the clause named here;
``qloracle explain OPERATION`` prints it.
"""

from qloracle_conformance.protocols import (
    adapters,
    affine,
    blockwise,
    conversions,
    double,
    footprint,
    int8,
    int8_linear,
    layers,
    merging,
    optimizers,
    packing,
    products,
    requantizing,
    tables,
)

PROTOCOLS: dict[str, type] = {
    name: protocol
    for part in (
        conversions,
        packing,
        tables,
        blockwise,
        double,
        int8,
        affine,
        int8_linear,
        layers,
        products,
        merging,
        requantizing,
        adapters,
        optimizers,
        footprint,
    )
    for name, protocol in part.PROTOCOLS.items()
}
