"""The tables and constants of the specification as one C header, `qloracle.h`, made from the reference."""
