"""Races: the same names, yours, ours and the peers', in one run."""
