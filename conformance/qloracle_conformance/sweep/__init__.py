"""`qloracle sweep`: a conversion of the reference against another one, over all 2^32 float32 inputs."""
