"""Large inputs: tensors around 2^31 elements, of which the first and last blocks and those at boundaries are judged."""
