"""A training script for the tests: dropout, Adam, and all three global generators, on a run folder of the harness.

python tiny_training.py --out FOLDER [--resume] [--method bp] [--lr 0.01] [--steps 40] [--ballast 0]
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from harness import cli
from harness.run import Run
from harness.seeds import seed_everything
from tinydfa import Method


@dataclass
class Config:
    """Train a tiny network."""

    out: Path
    resume: bool = False
    method: Method = Method.BP
    lr: float = 0.01
    steps: int = 40
    save_every: int = 3
    ballast: int = 0
    """Extra megabytes in each checkpoint, so that writing one takes a while."""
    seed: int = 0


def main(config: Config) -> None:
    seed_everything(config.seed)
    inputs = torch.randn(64, 10)
    targets = (inputs[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr)
    ballast = torch.zeros(config.ballast * 2**18)
    with Run("tiny", "net", config, config.out, config.resume) as run:
        start = 0
        if state := run.restore():
            start = state["step"]
            model.load_state_dict(state["model"])
            optimizer.load_state_dict(state["optimizer"])
        for step in range(start + 1, config.steps + 1):
            batch = np.random.permutation(64)[:16]
            loss = nn.functional.cross_entropy(model(inputs[batch] * random.random()), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(step, train_loss=loss)
            if step % config.save_every == 0:
                run.log(step, draw=float(np.random.randn()))
                run.save(step, model=model.state_dict(), optimizer=optimizer.state_dict(), ballast=ballast)
        torch.save(model.state_dict(), config.out / "final.pt")
        metrics = {"train_loss": loss.item(), "norm": sum(p.norm() for p in model.parameters()).item()}
        run.finish(model="net", dataset="random", method=config.method, seed=config.seed, metrics=metrics)


if __name__ == "__main__":
    cli.run(Config, main)
