"""Automatic differentiation by our own hand."""

from __future__ import annotations

from impl.autograd.decision_boundary import plot_decision_boundary
from impl.autograd.graph import export_graph, topological_sort
from impl.autograd.mlp import MLP, Layer, Neuron
from impl.autograd.tensor import Tensor, unbroadcast
from impl.autograd.training import train
from impl.autograd.value import Value

__all__ = [
    "MLP",
    "Layer",
    "Neuron",
    "Tensor",
    "Value",
    "export_graph",
    "plot_decision_boundary",
    "topological_sort",
    "train",
    "unbroadcast",
]
