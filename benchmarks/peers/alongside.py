"""Peers that run in this process: torchfm's click models, PyG's example, and the Transformer of plain torch.

All by backpropagation, which is what they have. Each contestant trains the way its own example does; what a package
offers for the same model but its example does not use stays unused, except that torchfm also gets the fused Adam.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.contest import Contest
from benchmarks.scale import Scale


def torchfm(scale: Scale) -> Iterator[Contest]:
    """The five click models on a batch of a log like Criteo's."""
    from benchmarks import recsys_step
    from benchmarks.methods import recsys_config
    from recsys.preset import MODELS
    from tinydfa import Method

    config = recsys_config(scale)
    field_dims, batch = recsys_step.draw(config)
    for model in MODELS:
        preset = recsys_step.find(model, Method.BP, config.batch)
        yield Contest(
            task="recsys",
            model=recsys_step.title(model, config),
            steps={
                "torchfm": recsys_step.torchfm_step(preset, field_dims, batch, fused=False),
                "torchfm, fused": recsys_step.torchfm_step(preset, field_dims, batch, fused=True),
                "bp": recsys_step.our_step(preset, field_dims, batch),
            },
            peers={"bp": "torchfm"},
        )


def pyg(scale: Scale) -> Iterator[Contest]:
    """The graph convolution on the synthetic citation graph: epochs with evaluation, as PyG's example has them."""
    from benchmarks.graphs_gcn import example_epoch, our_epoch
    from graphs.data.load import load_graph

    graph = load_graph("synthetic").to(scale.device)
    yield Contest(
        task="graphs",
        model=f"GCN, {len(graph.y)} nodes, evaluation included",
        steps={
            "PyG example": example_epoch(graph, graph.x.to_dense()),
            "bp": our_epoch(graph, "bp"),
            "dfa": our_epoch(graph, "dfa"),
        },
        peers={"bp": "PyG example"},
        repeats=1 if scale.quick else 15,
    )


def plain_torch(scale: Scale) -> Iterator[Contest]:
    """The language model of `nn.TransformerEncoder`, both sides eager."""
    from benchmarks.methods import nlp_config
    from benchmarks.nlp_tokens import our_step, plain_step

    config = nlp_config(scale)
    yield Contest(
        task="nlp",
        model=f"Transformer {config.sizes()} tokens",
        steps={"plain torch": plain_step(config, config.preset()), "bp": our_step(config, config.preset())},
        peers={"bp": "plain torch"},
    )
