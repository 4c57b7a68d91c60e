"""Compare what operators return where kernels run with the empty tensors that compilers are told of.

Run as a module in a process of its own, with TRITON_INTERPRET=1.
"""

import sys

import torch

from qloracle_gpu.torch.kernels.availability import kernels_run_on

from .operator_cases import operator_cases


def main() -> None:
    """Check every case."""
    assert kernels_run_on("cpu"), "Triton does not interpret: nothing was shown"
    cases = operator_cases()
    for name, arguments in cases.values():
        torch.library.opcheck(getattr(torch.ops.qloracle, name).default, arguments, test_utils="test_faketensor")
    sys.stdout.write(f"as told: {len(cases)}\n")


if __name__ == "__main__":
    main()
