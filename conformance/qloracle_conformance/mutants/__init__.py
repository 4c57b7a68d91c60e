"""Deliberately wrong backends that the suite must catch, and right rewrites that it must not accuse."""
