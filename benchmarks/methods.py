"""Each task's model by backpropagation and by the methods that replace it: the contests of `python -m benchmarks`.

A step is what the task's training script does with one batch, its optimiser included; evaluation is left out. All
methods of a model have the settings of backpropagation, so that nothing but the method differs; DeepFM's embeddings
alone get no signal from the hidden layers by DFA and shallow training, as published.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

import torch

from benchmarks import graphs_gcn, nerf_rays, nlp_tokens, recsys_step, step_time
from benchmarks.contest import Contest
from benchmarks.scale import Scale
from benchmarks.timing import Step
from graphs.data.load import load_graph
from graphs.presets import gcn_bp
from graphs.train import train_epoch as train_graph
from harness.methods import rule_of
from harness.run.allocator import keep_freed_memory
from tinydfa import Method, attach
from vision.data.splits import Split
from vision.models.build import build_model
from vision.optimizers import make_optimizer
from vision.preset import Preset
from vision.presets import PRESETS
from vision.training import train_epoch

SMALL_NETS = (Method.BP, Method.SHALLOW, Method.DFA, Method.DRTP, Method.FA)
EVERYWHERE = (Method.BP, Method.SHALLOW, Method.DFA)


def core(scale: Scale) -> Iterator[Contest]:
    """The wide perceptron of `benchmarks.step_time`, on a GPU a wider one."""
    case = step_time.CASES["wide"]
    if scale.quick:
        case = step_time.mlp_case(16, 20, 16, 16, 5, target=1.0, rounds=1)
    elif scale.large:
        case = step_time.mlp_case(4096, 784, 4096, 4096, 4096, 4096, 10, target=0.75, rounds=1)
    config = step_time.Config(device=scale.device)
    steps = {method.value: step_time.stepper(case, method, config) for method in SMALL_NETS}
    yield Contest(task="core", model=case.name, steps=steps, limits=broadcasting(case.limit), repeats=3)


def broadcasting(limit: float) -> dict[str, float]:
    """The same limit for all methods that project a signal to every hidden layer."""
    return {method.value: limit for method in SMALL_NETS if rule_of(method).broadcasts}


def vision(scale: Scale) -> Iterator[Contest]:
    """Fully connected networks of the DRTP paper, on one batch of noise as large as MNIST's images."""
    for name in ("fc1-1000", "fc2-500"):
        preset = PRESETS[f"drtp_mnist_{name}_bp"]
        if scale.quick:
            preset = replace(preset, hidden=(20,) * len(preset.hidden), batch=10)
        widths = (784, *preset.hidden, 10)
        yield Contest(
            task="vision",
            model=f"FC {'-'.join(map(str, widths))}, batch {preset.batch}",
            steps={method.value: vision_step(replace(preset, method=method), scale.device) for method in SMALL_NETS},
            limits=broadcasting(step_time.mlp_limit(widths, preset.feedback.shared)),
            repeats=1 if scale.quick else 30,
        )


def vision_step(preset: Preset, device: str) -> Step:
    """A step of `vision.train`: an epoch of one batch."""
    torch.manual_seed(0)
    batch = Split(torch.rand(preset.batch, 1, 28, 28), torch.randint(0, 10, (preset.batch,))).to(device)
    model = build_model(preset, (1, 28, 28), 10).to(device)
    attachment = attach(model, preset.method, feedback=preset.feedback)
    return partial(train_epoch, model, batch, make_optimizer(preset.optimizer, model, preset.lr), preset, attachment)


def graphs(scale: Scale) -> Iterator[Contest]:
    """The graph convolution of Kipf and Welling on the synthetic citation graph, which has one size."""
    graph = load_graph("synthetic").to(scale.device)
    steps: dict[str, Step] = {}
    for method in EVERYWHERE:
        model, optimizer = graphs_gcn.prepare(graph, method)
        steps[method.value] = partial(train_graph, model, graph, optimizer, gcn_bp)
    yield Contest(
        task="graphs",
        model=f"GCN, {len(graph.y)} nodes",
        steps=steps,
        limits={"dfa": 1.0},  # with one hidden layer, e @ F stands for a product of the same size
        repeats=1 if scale.quick else 30,
    )


def recsys_config(scale: Scale) -> recsys_step.Config:
    """Sizes of the click models' step."""
    if scale.quick:
        return recsys_step.Config(batch=32, categories=2000, device=scale.device)
    return recsys_step.Config(device=scale.device)


def recsys(scale: Scale) -> Iterator[Contest]:
    """DCN and DeepFM on a batch of a log like Criteo's."""
    config = recsys_config(scale)
    field_dims, batch = recsys_step.draw(config)
    for model in ("dcn", "deepfm"):
        presets = {method.value: recsys_step.find(model, method, config.batch) for method in EVERYWHERE}
        yield Contest(
            task="recsys",
            model=recsys_step.title(model, config),
            steps={name: recsys_step.our_step(preset, field_dims, batch) for name, preset in presets.items()},
            limits={"dfa": recsys_step.limit(presets["dfa"], presets["bp"], len(field_dims))},
        )


def nlp_config(scale: Scale) -> nlp_tokens.Config:
    """Sizes of the language model's step."""
    if scale.quick:
        return nlp_tokens.Config(batch=2, chunk=4, vocabulary=20, layers=1, d_model=16, device=scale.device)
    return nlp_tokens.Config(batch=64 if scale.large else 8, device=scale.device)


def nlp(scale: Scale) -> Iterator[Contest]:
    """The Transformer of arXiv 2006.12878, with a feedback point a block (macro) or three (micro)."""
    config = nlp_config(scale)
    bp = config.preset()
    presets = {"bp": bp, "shallow": replace(bp, method=Method.SHALLOW)}
    presets |= {f"dfa, {name}": replace(bp, method=Method.DFA, granularity=name) for name in nlp_tokens.TARGETS}
    yield Contest(
        task="nlp",
        model=f"Transformer {config.sizes()} tokens",
        steps={name: nlp_tokens.our_step(config, preset) for name, preset in presets.items()},
        limits={f"dfa, {name}": nlp_tokens.limit(name, *config.limit_sizes()) for name in nlp_tokens.TARGETS},
    )


def nerf(scale: Scale) -> Iterator[Contest]:
    """The published radiance field of 8 x 256 units on the project's ray-traced scene."""
    config = nerf_rays.Config(rays=1024 if scale.large else 64, device=scale.device)
    if scale.quick:
        config = replace(config, depth=2, width=8, rays=4, size=5)
    keep_freed_memory()  # as `nerf.train` does
    scene = nerf_rays.load(config)
    yield Contest(
        task="nerf",
        model=f"NeRF {config.depth} x {config.width}, {config.rays} rays",
        steps={method.value: nerf_rays.method_step(config, scene, method) for method in EVERYWHERE},
        limits={"dfa": nerf_rays.limit(nerf_rays.large_preset(config).architecture())},
    )


METHODS: dict[str, Callable[[Scale], Iterable[Contest]]] = {
    "core": core,
    "vision": vision,
    "graphs": graphs,
    "recsys": recsys,
    "nlp": nlp,
    "nerf": nerf,
}
