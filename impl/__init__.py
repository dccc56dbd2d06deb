"""The shipped implementation, by subject.  A room imports torch, NumPy, the standard library and other rooms."""
