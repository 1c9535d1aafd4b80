"""The table behind docs/what-to-try.md: one change of DFA's setting at a time, at four learning rates.

The text is Python's own documentation, so that nothing is downloaded: characters, 300 steps of 1,024 of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch.nn import functional as F

from harness.device import pick_device
from harness.run import check_loss
from harness.seeds import seed_everything
from harness.tables import Cell, RunContext, Table
from harness.tables.grids import or_diverged
from harness.tables.results import make_result
from nlp.text.load import load_corpus
from nlp.text.streams import chunks
from reproduce.advice.model import LENGTH, CharacterModel
from tinydfa import attach

RATES = (3e-4, 1e-3, 3e-3, 1e-2)
BATCH, STEPS, VALIDATED = 16, 300, 20  # sequences, steps, batches of the validation text
FOLDER = "advice"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A way to attach a rule to the model."""

    row: str
    rule: str = "dfa"
    points: tuple[str, ...] = ("blocks.*",)
    output: str | None = None  # the module at whose output the error is taken; None: the model's
    post_norm: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


LOWER: dict[str, Any] = {"output": "norm"}
BELOW_NORM: dict[str, Any] = {"output": "blocks.2"}
WITHOUT_LAST = ("blocks.0", "blocks.1")
VARIANTS = {
    "bp": Variant(row="backpropagation", rule="bp"),
    "shallow": Variant(row="shallow: only what lies above the last point", rule="shallow"),
    "dfa": Variant(row="DFA as one attaches it: a point a block, error at the logits"),
    "more_points": Variant(row="points after attention too", points=("blocks.*.attended", "blocks.*")),
    "fewer_points": Variant(row="one point, after the first block", points=("blocks.0",)),
    "no_last": Variant(row="no point at the last block", points=WITHOUT_LAST),
    "lower": Variant(row="error taken before the last layer", **LOWER),
    "lower_no_last": Variant(
        row="error taken before the last layer, no point at the last block", points=WITHOUT_LAST, **LOWER
    ),
    "below_norm": Variant(
        row="error taken before the last norm, no point at the last block", points=WITHOUT_LAST, **BELOW_NORM
    ),
    "post_norm": Variant(row="norms after the sums", post_norm=True),
    "post_norm_lower_no_last": Variant(
        row="norms after the sums, error before the last layer, no point at the last block",
        post_norm=True,
        points=WITHOUT_LAST,
        **LOWER,
    ),
    "fitted": Variant(row="fitted", rule="fitted(exact_every=50)"),
    "fitted_lower_no_last": Variant(
        row="fitted, error before the last layer, no point at the last block",
        rule="fitted(exact_every=50)",
        points=WITHOUT_LAST,
        **LOWER,
    ),
    "fitted_below_norm": Variant(
        row="fitted, error before the last norm, no point at the last block",
        rule="fitted(exact_every=50)",
        points=WITHOUT_LAST,
        **BELOW_NORM,
    ),
    "fdfa": Variant(row="fdfa: no backpropagation anywhere", rule="fdfa"),
    "fdfa_below_norm": Variant(
        row="fdfa, error before the last norm, no point at the last block",
        rule="fdfa",
        points=WITHOUT_LAST,
        **BELOW_NORM,
    ),
    "bp_post_norm": Variant(row="backpropagation, norms after the sums", rule="bp", post_norm=True),
}


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train the model in one way at one rate."""
    name, _, rate = cell.key.partition("_lr-")
    quick = context.scale == "quick"
    device = pick_device(context.device)
    start = perf_counter()
    found = trained(VARIANTS[name], float(rate), seed, device, steps=5 if quick else STEPS)
    return make_result(
        task=FOLDER,
        model="character Transformer of three blocks",
        dataset=cell.dataset,
        method=cell.method,
        seed=seed,
        metrics={"val_nats": found},
        seconds=perf_counter() - start,
        config={"variant": vars(VARIANTS[name]), "lr": float(rate), "steps": STEPS, "batch": BATCH},
        device=device,
    )


def trained(variant: Variant, rate: float, seed: int, device: torch.device, steps: int) -> float:
    """Nats a character on validation text after training: a loop as people write it."""
    corpus = load_corpus("synthetic", vocabulary="char")
    seed_everything(seed)
    model = CharacterModel(corpus.vocabulary.size, variant.post_norm).to(device)
    attach(model, variant.rule, points=list(variant.points), output=variant.output, seed=seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for step, chunk in enumerate(itertools.islice(forever(corpus.train, device), steps), start=1):
        loss = F.cross_entropy(model(chunk.x).flatten(0, 1), chunk.y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == steps or step % 50 == 0:
            check_loss(loss.item(), step)
    model.eval()
    with torch.no_grad():
        parts = itertools.islice(chunks(corpus.val, BATCH, LENGTH, device), VALIDATED)
        losses = [F.cross_entropy(model(part.x).flatten(0, 1), part.y.flatten()).item() for part in parts]
    return sum(losses) / len(losses)


def forever(text: Any, device: torch.device) -> Any:
    """The text in batches, again and again."""
    while True:
        yield from chunks(text, BATCH, LENGTH, device)


WHAT_TO_TRY = Table(
    name="what-to-try",
    title="A Transformer of three blocks by DFA, changed in one way at a time: validation loss",
    task=FOLDER,
    unit="nats a character",
    decimals=2,
    cells=tuple(
        Cell(
            row=variant.row,
            column=f"lr {rate:g}",
            method=variant.rule.partition("(")[0],
            key=f"{name}_lr-{rate:g}",
            dataset="synthetic",
            metric="val_nats",
        )
        for name, variant in VARIANTS.items()
        for rate in RATES
    ),
    source="ours: no paper has such a table",
    run=or_diverged(FOLDER, run),
    notes=(
        f"Python's documentation by characters, {STEPS} steps of Adam on {BATCH} x {LENGTH} of them; norms before the "
        "layers, as in GPT-2, unless a row says otherwise; fixed rate.",
    ),
    in_quick=False,
    needs="nothing",
    time="10 to 20 s a run (1 core)",
)

TABLES: tuple[Table, ...] = (WHAT_TO_TRY,)
