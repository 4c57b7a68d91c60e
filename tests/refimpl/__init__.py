"""Tests of the reference: every rule against exact rational arithmetic, or against another library."""
