"""Standalone scripts that show a deviation with the library and NumPy alone."""
