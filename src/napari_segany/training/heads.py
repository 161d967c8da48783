"""Small heads of nano, taught after the network and from features that stay as they are."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from napari_segany.models.nano.network import Nano
from napari_segany.models.nano.weights import load_nano, save_weights


def train_head(
    head: nn.Module,
    rows: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    *,
    epochs: int,
    at_once: int,
    learning_rate: float,
    weight_decay: float,
    seed: int,
) -> None:
    """Train a head in place, the learning rate falling to zero by a cosine.

    Parameters
    ----------
    head : module
    rows : (N,) int64
        Numbers of the examples to learn from.
    loss_of : callable
        Loss of some of the rows (M,), a scalar.
    epochs, at_once : int
        How often each row is seen, and how many of them in a step.
    learning_rate, weight_decay : float
        Of AdamW.
    seed : int
        Of the order of rows.
    """
    head.train().requires_grad_(True)
    optimiser = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
        for part in rows[torch.randperm(len(rows), generator=generator)].split(at_once):
            loss = loss_of(part)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    head.eval().requires_grad_(False)


def read_command(description: str | None, what: str, count: float) -> argparse.Namespace:
    """Read a command line that names what to learn from and a weight file: data, weights, count and seed.

    Parameters
    ----------
    description : str
        Of the command.
    what, count : str and number
        Name of the option that says how much to learn, and what it is without it.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of annotated images with an index.json")
    parser.add_argument("--weights", type=Path, required=True, help="weight file of nano, which is changed")
    parser.add_argument(f"--{what}", dest="count", type=type(count), default=count)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def teach_weight_file(
    description: str | None, what: str, count: int, train: Callable[[Path | None, Nano, int, int], str]
) -> None:
    """Read a command line, and teach a head of the weight file that it names.

    Parameters
    ----------
    description : str
        Of the command.
    what, count : str and int
        Name of the option that says how much to learn from, and what it is without it.
    train : callable
        Takes the data, the network, that number and the seed, and says how it went.
    """
    args = read_command(description, what, count)
    network = load_nano(torch.device("cpu"), torch.float32, args.weights).network
    print(train(args.data, network, args.count, args.seed))
    save_weights(network, args.weights)
