"""Benches: lanes raced in one process, clocks, ceilings of the machine, memory, budgets, the GPU gate."""
