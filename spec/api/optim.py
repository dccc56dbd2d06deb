"""Optimisation: schedules of the learning rate."""

from __future__ import annotations


def linear_warmup(step: int, *, peak: float, warmup: int, total: int | None = None) -> float:
    """Return the learning rate of update `step`, counted from 0: peak · (step + 1)/warmup below `warmup`, then peak.

    The first update has the rate peak/warmup (never a wasted update at rate 0) and update warmup − 1 has the peak;
    warmup = 0 means none.  Under bias-corrected Adam an update moves a coordinate by about the rate whatever the
    gradient's scale, so warm-up bounds how far the first updates, whose second moments are guesses, can go.

    Raises:
        ValueError: step or warmup is negative, peak is not positive, or warmup is above total; the values are named.
    """
    ...
