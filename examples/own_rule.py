"""A training rule of one's own: python examples/own_rule.py

Every command of the tasks takes it as well, for instance:

    python -m vision.train --method examples/own_rule.py:Clipped
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tinydfa


class Clipped(tinydfa.Broadcast):
    """DFA with a clipped error."""

    def encode(self, error: Tensor, target: Tensor | None) -> Tensor:
        """What is projected, ``[B, c] -> [B, c]``."""
        return error.clamp(-0.01, 0.01)


def main() -> None:
    """Train a perceptron by it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    teacher = nn.Linear(20, 4)
    tinydfa.attach(model, Clipped(), points=["1"])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(1, 301):
        x = torch.randn(64, 20)
        loss = cross_entropy(model(x), teacher(x).argmax(dim=1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}: loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
