"""scipy.special over the last or any other axis.

Its softmax and log_softmax give NaN where the contract states a limit; an infinity of either sign is led there by hand.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import special

from reference.peers.refusals import refusing

Array = np.ndarray[Any, Any]


def _floating(x: Array) -> Array:
    if x.dtype.kind != "f":
        raise TypeError("scipy would turn integers into floats")
    return x


@refusing
def logsumexp(x: Array, dim: int = -1) -> Array:
    """scipy.special.logsumexp."""
    return np.asarray(special.logsumexp(_floating(x), axis=dim))


def _at_the_limits(x: Array, dim: int, found: Array, none: float) -> Array:
    """`none` for entries without mass: −∞, and everything beside a +∞."""
    overshadowed = np.isposinf(x).any(axis=dim, keepdims=True) & ~np.isposinf(x) & ~np.isnan(x)
    return np.where(np.isneginf(x) | overshadowed, none, found)


@refusing
def softmax(x: Array, dim: int = -1) -> Array:
    """scipy.special.softmax; +∞ as the largest number, −∞ without mass."""
    with np.errstate(invalid="ignore"):
        p = special.softmax(np.minimum(_floating(x), np.finfo(x.dtype).max), axis=dim)
    return _at_the_limits(x, dim, p, 0.0)


@refusing
def log_softmax(x: Array, dim: int = -1) -> Array:
    """scipy.special.log_softmax; +∞ as the largest number, −∞ as −∞."""
    with np.errstate(invalid="ignore", divide="ignore"):
        log_p = special.log_softmax(np.minimum(_floating(x), np.finfo(x.dtype).max), axis=dim)
    return _at_the_limits(x, dim, log_p, -np.inf)
