"""The generators: recipes for inputs, written once, driven by a counter (verdicts) or by Hypothesis (search)."""
