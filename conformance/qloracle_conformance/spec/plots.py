"""Step functions of codebooks as SVG that takes its colours from the page, light or dark."""

import numpy as np

from qloracle.codebooks import Codebook

_SIZE, _MARGIN, _TOP = 320, 44, 10


def step_function(codebook: Codebook) -> str:
    """Return a plot of what every real number between the outermost entries is restored to: its nearest entry."""
    values = np.asarray(codebook.entries[codebook.value_order], np.float64).tolist()
    low, high = values[0], values[-1]

    def across(value: float) -> str:
        return f"{_MARGIN + (value - low) / (high - low) * _SIZE:.2f}"

    def upward(value: float) -> str:
        return f"{_TOP + (high - value) / (high - low) * _SIZE:.2f}"

    edges = [low, *np.asarray(codebook.midpoints, np.float64).tolist(), high]
    points = " ".join(
        f"{across(x)},{upward(value)}" for i, value in enumerate(values) for x in (edges[i], edges[i + 1])
    )
    right = _MARGIN + _SIZE
    ticks = [low + (high - low) * i / 4 for i in range(5)]
    grid = "".join(
        f'<line class="grid" x1="{across(t)}" y1="{_TOP}" x2="{across(t)}" y2="{_TOP + _SIZE}"/>'
        f'<line class="grid" x1="{_MARGIN}" y1="{upward(t)}" x2="{right}" y2="{upward(t)}"/>'
        f'<text x="{across(t)}" y="{_TOP + _SIZE + 16}" text-anchor="middle">{t:.3g}</text>'
        f'<text x="{_MARGIN - 6}" y="{upward(t)}" dy="4" text-anchor="end">{t:.3g}</text>'
        for t in ticks
    )
    entries = "".join(
        f'<line class="entry" x1="{right + 4}" y1="{upward(v)}" x2="{right + 12}" y2="{upward(v)}"/>' for v in values
    )
    return (
        f'<figure class="steps"><svg viewBox="0 0 {right + 24} {_TOP + _SIZE + 24}" role="img"'
        f' aria-label="Step function of {codebook.name}">{grid}'
        f'<line class="identity" x1="{_MARGIN}" y1="{_TOP + _SIZE}" x2="{right}" y2="{_TOP}"/>'
        f'<polyline points="{points}"/>{entries}</svg>'
        f"<figcaption>{codebook.name}: x/absmax across, the entry that it is restored to upwards;"
        " the entries as ticks on the right.</figcaption></figure>"
    )
