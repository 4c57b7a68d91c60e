"""Error analysis of sums: real values tracked with the radius that the roundings of a sum may add (`interval`)."""
