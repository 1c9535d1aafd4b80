"""Link prediction with a graph auto-encoder (Kipf and Welling 2016): embed nodes so that joined ones point alike.

    python -m graphs.autoencoder --dataset cora --method dfa

The encoder is a two-layer graph convolution, the decoder the inner product of two embeddings as a logit. Full batch,
Adam; reported are AUC and average precision on the held-out test edges after the last epoch, as in the published code.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graphs.config import ALONE, BaseConfig
from graphs.data.graph import Graph
from graphs.data.links import LinkSplit, split_links
from graphs.data.load import load_graph
from graphs.models.networks import Encoder
from graphs.presets import AutoencoderPreset, find_autoencoder_preset
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import rule_of, slug
from harness.options import Flat
from harness.run import NullRun, Run
from harness.run.stateful import Record
from harness.seeds import seed_everything
from tinydfa import attach


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Train a graph auto-encoder on a citation graph."""

    preset: Flat[AutoencoderPreset]

    @staticmethod
    def choose(dataset: str = "synthetic", method: str | None = None) -> AutoencoderPreset:
        """The preset that these options select."""
        return find_autoencoder_preset(dataset=dataset, method=method)

    def __post_init__(self) -> None:
        super().__post_init__()
        if rule_of(self.preset.method).needs_target:
            method = f"--method {self.preset.method}"
            raise UserError(f"{method} needs a target per node, and link prediction has none. Use dfa or sdfa.")

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return f"gae_{slug(self.preset.method)}-{self.dataset}-{self.seed}"

    def settings(self) -> dict[str, Any]:
        """All that decided the run: the preset, the data set and the seed."""
        return vars(self.preset) | {"dataset": self.dataset, "seed": self.seed}


@dataclass
class History(Record):
    """One loss an epoch, and scores every ten epochs."""

    train_loss: list[float] = field(default_factory=list)  # nats per edge
    test_auc: list[float] = field(default_factory=list)
    test_ap: list[float] = field(default_factory=list)


def train(config: Config, run: Run | None = None, whole: Graph | None = None) -> dict[str, Any]:
    """Train as `config` says; for the arguments see `graphs.train.train`."""
    preset, device = config.preset, pick_device(config.device)
    whole = (whole or load(config)).to(device)
    links = split_links(whole, preset.val_edges, preset.test_edges, config.seed)
    graph = whole.with_edges(links.train)
    run = run or NullRun("graphs", config.settings())
    seed_everything(config.seed)
    encoder = Encoder(graph.features, preset.width).to(device)
    attachment = attach(encoder, preset.method, seed=config.seed)
    optimizer, history = torch.optim.Adam(encoder.parameters(), lr=preset.lr), History()
    state = {"model": encoder, "attachment": attachment, "optimizer": optimizer, "history": history}
    done = run.resume(state)
    for epoch in run.track(range(done + 1, preset.epochs + 1), f"auto-encoder, {preset.method}"):
        scalars = {"train_loss": train_epoch(encoder, graph, optimizer)}
        if epoch % 10 == 0 or epoch == preset.epochs:
            scalars |= evaluate(encoder, graph, links)
        for name, value in scalars.items():
            getattr(history, name).append(value)
        run.log(epoch, **scalars)
        if epoch % config.checkpoint_every == 0:
            run.save(epoch, **state)
    metrics = {name: values[-1] for name, values in vars(history).items()}
    return run.finish(model="gae", metrics=metrics, curves=vars(history), device=device)


def train_epoch(encoder: nn.Module, graph: Graph, optimizer: torch.optim.Optimizer) -> float:
    """One step on all training edges and as many absent ones, drawn anew; the loss before it, in nats per edge."""
    from torch_geometric.utils import negative_sampling

    encoder.train()
    optimizer.zero_grad()
    absent = negative_sampling(graph.edge_index, graph.nodes, graph.edge_index.size(1))
    loss = reconstruction_loss(encoder(graph), graph.edge_index, absent)
    loss.backward()
    optimizer.step()
    return loss.item()


def reconstruction_loss(z: Tensor, present: Tensor, absent: Tensor) -> Tensor:
    """Binary cross-entropy of present edges plus that of absent ones, each a mean over its edges, in nats."""
    return F.softplus(-decode(z, present)).mean() + F.softplus(decode(z, absent)).mean()


def decode(z: Tensor, edges: Tensor) -> Tensor:
    """Logit of each edge: the inner product of its ends' embeddings, ``[N, d], [2, E] -> [E]``."""
    return (z[edges[0]] * z[edges[1]]).sum(dim=1)


@torch.no_grad()
def evaluate(encoder: nn.Module, graph: Graph, links: LinkSplit) -> dict[str, float]:
    """AUC and average precision of the test edges against the absent pairs, fractions."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    encoder.eval()
    z = encoder(graph)
    scores = torch.cat([decode(z, links.test), decode(z, links.test_absent)]).cpu().numpy()
    truth = torch.cat([torch.ones(links.test.size(1)), torch.zeros(links.test_absent.size(1))]).numpy()
    return {
        "test_auc": float(roc_auc_score(truth, scores)),
        "test_ap": float(average_precision_score(truth, scores)),
    }


def load(config: Config) -> Graph:
    """The graph of `config`."""
    return load_graph(config.dataset, config.data_dir)


if __name__ == "__main__":
    from harness.command import command

    command("graphs", Config, load, train, alone=ALONE)
