"""scipy.special's log-sum-exp and softmax behind the house's names."""

from __future__ import annotations

ARRAYS = "numpy"
REQUIRES = ["scipy"]
