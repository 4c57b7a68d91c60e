"""Backends that the suite brings along: the reference itself, and adapters of libraries."""
