"""Whether a result is right: closeness to the oracle, gradients, the diagnosis and replay of a failure."""
