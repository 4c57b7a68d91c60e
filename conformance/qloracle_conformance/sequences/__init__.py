"""Sequences: operations called one after another on each other's results, judged by the oracles of their stages."""
