"""How kernels share out elements."""

ITEMS = 8  # elements of a thread in vectorised kernels
LANES = 32  # threads of a warp
