"""Under Lightning: python examples/lightning_module.py

Checkpoints hold the attachment's state under the key "tinydfa".
"""

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import tinydfa


class Classifier(L.LightningModule):
    """A perceptron that learns by DFA."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
        tinydfa.attach(self.net, "dfa", points=["1", "3"])

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """The loss of a batch."""
        loss = cross_entropy(self.net(batch[0]), batch[1])
        if number % 25 == 0:
            print(f"epoch {self.current_epoch}, step {number}: loss {loss.item():.3f}")
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


torch.manual_seed(0)
x = torch.randn(3200, 20)
data = DataLoader(TensorDataset(x, nn.Linear(20, 4)(x).argmax(dim=1)), batch_size=64)
trainer = L.Trainer(
    max_epochs=6, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
)
trainer.fit(Classifier(), data)
