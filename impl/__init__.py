"""The shipped implementation, by subject.  Each room imports torch, NumPy, the standard library and other rooms only."""
