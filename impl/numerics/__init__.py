"""Stable exponentials, and finite differences to check gradients with."""

from impl.numerics.error_histogram import ErrorHistogram, error_histogram
from impl.numerics.finite_difference import finite_difference
from impl.numerics.gradient_check import GradientCheck, gradcheck
from impl.numerics.log_softmax import log_softmax
from impl.numerics.logsumexp import logsumexp
from impl.numerics.precision import roundoff
from impl.numerics.softmax import softmax, softmax_backward

__all__ = [
    "ErrorHistogram",
    "GradientCheck",
    "error_histogram",
    "finite_difference",
    "gradcheck",
    "log_softmax",
    "logsumexp",
    "roundoff",
    "softmax",
    "softmax_backward",
]
