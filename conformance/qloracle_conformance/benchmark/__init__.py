"""`qloracle bench`: how fast a backend is, beside the machine's own limits and other libraries, in one run."""
