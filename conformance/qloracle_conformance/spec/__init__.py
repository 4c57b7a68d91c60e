"""The specification as a document: clauses, rounding points, coverage, and the site that `qloracle spec` builds."""
