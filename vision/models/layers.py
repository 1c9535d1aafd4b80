"""What the networks of this folder are made of: activations by name, and how weights start.

The papers differ in both, and a method may depend on it: DFA and its relatives often start from zero weights, from
which backpropagation cannot move.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from harness.errors import UserError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
    "leaky-relu-0.5": lambda: nn.LeakyReLU(0.5),
    "leaky-relu-0.1": lambda: nn.LeakyReLU(0.1),
    "leaky-relu-0.01": lambda: nn.LeakyReLU(0.01),
}
WIDEST = 10**7  # units or channels of a layer: of 784 inputs so many take 31 GB, before their gradients
INITS = ("default", "he", "xavier", "normal", "zero")


def activation(name: str) -> nn.Module:
    """The activation called `name`; the number after leaky-relu is its slope below zero.

    Raises:
        UserError: there is none of that name.

    Example:
        >>> activation("leaky-relu-0.1")
        LeakyReLU(negative_slope=0.1)
    """
    if name not in ACTIVATIONS:
        raise UserError(f"no activation is called '{name}'. There are {', '.join(ACTIVATIONS)}.")
    return ACTIVATIONS[name]()


def initialise(model: nn.Module, init: str) -> None:
    """Draw the weights of every linear and convolutional layer anew, from torch's global generator.

    Args:
        model: Changed in place.
        init: "default": torch's own, uniform within 1/sqrt(fan-in); "he": uniform within sqrt(6/fan-in); "xavier":
            uniform within sqrt(6/(fan-in + fan-out)); "normal": standard normal, biases too; "zero": linear layers
            alone, as in the DRTP release. With "he", "xavier" and "zero" the biases keep torch's default.

    Raises:
        UserError: there is no initialisation of that name.
    """
    if init not in INITS:
        raise UserError(f"no initialisation is called '{init}'. There are {', '.join(INITS)}.")
    for module in model.modules():
        if not isinstance(module, nn.Linear | nn.Conv2d):
            continue
        match init:
            case "he":
                nn.init.kaiming_uniform_(module.weight)
            case "xavier":
                nn.init.xavier_uniform_(module.weight)
            case "normal":
                nn.init.normal_(module.weight)
                if module.bias is not None:
                    nn.init.normal_(module.bias)
            case "zero" if isinstance(module, nn.Linear):
                nn.init.zeros_(module.weight)
