"""Trusted packages behind the house's names: one package of adapters for each."""
