"""Muon for the weights of layers, AdamW for the rest."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon


class Optimiser:
    """Step a network's weights along orthogonalised momentum (Muon, Jordan et al. 2024).

    A convolution's weight is taken as the matrix (outputs, inputs x taps).
    Vectors (norms, biases) and embeddings follow AdamW.

    Parameters
    ----------
    model : nn.Module
    learning_rate, weight_decay : float
        As for AdamW; Muon's steps are scaled to the same size.
    """

    def __init__(self, model: nn.Module, learning_rate: float, weight_decay: float) -> None:
        layers = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
        known = {id(weight) for weight in layers}
        # The same memory as the weights, seen as matrices.
        self._matrices = [(weight, nn.Parameter(weight.detach().flatten(1))) for weight in layers]
        rest = [p for p in model.parameters() if id(p) not in known]
        self._muon = Muon(
            [matrix for _, matrix in self._matrices],
            lr=learning_rate,
            weight_decay=weight_decay,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = AdamW(rest, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, learning_rate: float) -> None:
        """Change the weights by their gradients."""
        for weight, matrix in self._matrices:
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for optimiser in (self._muon, self._adamw):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """State of both."""
        return {"muon": self._muon.state_dict(), "adamw": self._adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a state made by `state_dict`."""
        self._muon.load_state_dict(state["muon"])
        self._adamw.load_state_dict(state["adamw"])


def rate_at(share: float, step: int, warmup: int) -> float:
    """Share of the highest learning rate: it rises over the first steps and falls by a cosine over a training."""
    return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * share)) + 0.01)


@torch.no_grad()
def average_in(average: nn.Module, model: nn.Module, step: int, ema: float) -> None:
    """Move averaged weights towards those after a step, the first ones fast; afterwards they decay by `ema`."""
    decay = min(ema, (step + 1) / (step + 10))
    for kept, weight in zip(average.parameters(), model.parameters(), strict=True):
        kept.lerp_(weight, 1 - decay)
