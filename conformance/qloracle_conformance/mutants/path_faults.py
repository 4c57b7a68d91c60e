"""The faults of kernels that are wrong on one of their paths, by what the kernels do."""

from qloracle_conformance.mutants.mutant import Mutant
from qloracle_conformance.mutants.path_block_faults import path_block_faults
from qloracle_conformance.mutants.path_conversion_faults import path_conversion_faults
from qloracle_conformance.mutants.path_int8_faults import path_int8_faults
from qloracle_conformance.mutants.path_layer_faults import path_layer_faults
from qloracle_conformance.mutants.path_linear_faults import path_linear_faults
from qloracle_conformance.mutants.path_merge_faults import path_merge_faults
from qloracle_conformance.mutants.path_optimizer_faults import path_optimizer_faults
from qloracle_conformance.mutants.path_product_faults import path_product_faults
from qloracle_conformance.mutants.path_restore_faults import path_restore_faults
from qloracle_conformance.mutants.path_tile_faults import path_tile_faults


def path_faults() -> list[Mutant]:
    """Return the mutants."""
    return [
        *path_conversion_faults(),
        *path_block_faults(),
        *path_restore_faults(),
        *path_int8_faults(),
        *path_linear_faults(),
        *path_layer_faults(),
        *path_product_faults(),
        *path_merge_faults(),
        *path_optimizer_faults(),
        *path_tile_faults(),
    ]
