"""A device of one's own in the place of the feedback matrix: python examples/own_device.py

The device here is a simulation: it takes 1, 0 and -1 alone, and answers with noise.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import tinydfa


class Device:
    """Multiplies by a matrix that nobody has to know."""

    def __init__(self, columns: int = 64) -> None:
        generator = torch.Generator().manual_seed(7)
        self.matrix = torch.randn(4, columns, generator=generator)

    def __call__(self, encoded: Tensor, columns: int) -> Tensor:
        """Project ``[B, c]`` to ``[B, columns]``."""
        largest = encoded.abs().amax(dim=1, keepdim=True).clamp_min(1e-12)
        shown = (encoded / largest).round()  # what the device can be shown
        answer = shown @ self.matrix[:, :columns]
        return largest * (answer + 0.01 * torch.randn_like(answer))


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
teacher = nn.Linear(20, 4)
attachment = tinydfa.attach(model, "dfa", points=["1", "3"], feedback=tinydfa.Feedback(projector=Device()))

optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(1, 301):
    x = torch.randn(64, 20)
    loss = cross_entropy(model(x), teacher(x).argmax(dim=1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
print("the matrix it amounts to:", tuple(attachment.effective_feedback().shape))  # found by unit vectors
