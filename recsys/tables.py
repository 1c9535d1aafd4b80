"""The published click tables as data: which run produces the number of each cell.

Criteo is the data set of the paper. The other columns are a fixed split of it with published numbers of others, two
real data sets that are small enough for a laptop, and the click log of a known teacher, whose AUC is the best possible.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from harness.tables import Cell, RunContext, Table
from harness.tables.results import slim
from recsys import train
from recsys.config import Config, check_embedding_feedback
from recsys.preset import MODELS, EmbeddingFeedback, Preset
from recsys.presets import LEARNING_RATES, PRESETS, PUBLISHED, TRIED, find_preset
from recsys.published import ALIGNMENT, CRITEO, CRITEO_X1

SOURCE = "arXiv 2006.12878"
DATASETS = {
    "criteo": "Criteo",
    "criteo_x1": "Criteo_x1",
    "adult": "Adult",
    "ml-100k": "MovieLens-100K",
    "synthetic": "teacher's log",
}
TEACHER_ROWS = 1_000_000
TRIED_ROWS = 100_000  # of the teacher's log, where its rates are chosen
EMBEDDINGS: dict[EmbeddingFeedback, str] = {
    "off": "nothing, as released",
    "on": "DFA's signal",
    "through": "the gradient of the first layers",
}
AS_RELEASED_OFF = ("deepfm", "afn")
QUICK_ROWS, QUICK_EPOCHS = 6000, 4
NEEDS = "Criteo (train.txt of the Kaggle challenge), Criteo_x1, Adult, MovieLens-100K; the teacher's log needs nothing"
OUR_RATES = "Adult, MovieLens-100K and the teacher's log have presets of our own, with every method tuned apart."


def run(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train a cell's preset."""
    return _train(cell, seed, context)


def run_alignment(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """`run`, with the alignment measured after every epoch."""
    return _train(cell, seed, context, alignment_every=1)


def run_embedding(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """`run`, for a method that sends a signal to the embeddings.

    Raises:
        UserError: the method sends none, so the rows of the table would not differ.
    """
    check_embedding_feedback(cell.preset)
    return _train(cell, seed, context)


def run_rate(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """`run`, on fewer rows of the teacher's log."""
    return _train(cell, seed, context, teacher_rows=TRIED_ROWS)


def _train(
    cell: Cell, seed: int, context: RunContext, *, teacher_rows: int = TEACHER_ROWS, alignment_every: int | None = None
) -> dict[str, Any]:
    """One run; `teacher_rows` is the size of the teacher's log."""
    preset = replace(cell.preset, **cell.length)
    rows = teacher_rows if cell.dataset == "synthetic" else None
    if context.scale == "quick":
        preset, rows = _quick(preset), QUICK_ROWS
    if context.epochs is not None:
        preset = replace(preset, max_epochs=context.epochs)
    place: dict[str, Any] = {"data_dir": context.data_dir, "device": context.device}
    what: dict[str, Any] = {"preset": preset, "dataset": cell.dataset, "rows": rows, "seed": seed}
    return slim(train.train(Config(**what, alignment_every=alignment_every, **place)))


def _quick(preset: Preset) -> Preset:
    """The synthetic log's preset for the same model and method, shortened to a few epochs."""
    small = find_preset(model=preset.model, method=preset.method, dataset="synthetic")
    return replace(small, embedding_feedback=preset.embedding_feedback, max_epochs=QUICK_EPOCHS)


def preset_name(model: str, method: str, dataset: str) -> str:
    """The name of the preset that trains a model by a method on a data set."""
    if dataset == "synthetic":
        return f"{model}_{method}_teacher"
    return f"{model}_{method}_{dataset}" if dataset in LEARNING_RATES else f"{model}_{method}"


def _cells(methods: Iterable[str]) -> tuple[Cell, ...]:
    """AUC on every data set and log loss on Criteo, by model and method; FM has no hidden layer, so bp alone."""
    cells = []
    for model, row in MODELS.items():
        for method in methods:
            name = f"{model}_{method}"
            if name not in PUBLISHED:
                continue
            about = {"row": row, "method": method}
            auc, loss = CRITEO[name]
            for dataset, column in DATASETS.items():
                published = {"criteo": auc, "criteo_x1": CRITEO_X1.get(name)}.get(dataset)
                key = preset_name(model, method, dataset)
                where: dict[str, Any] = {"dataset": dataset, "key": key, "preset": PRESETS[key]} | about
                cells.append(Cell(column=f"{column} AUC", metric="test_auc", published=published, **where))
                if dataset == "criteo":
                    cells.append(Cell(column="Criteo log loss", metric="test_log_loss", published=loss, **where))
    return tuple(cells)


TEACHER = Cell(
    row="the teacher itself",
    column="teacher's log AUC",
    method="bp",
    key="fm_bp_teacher",
    preset=PRESETS["fm_bp_teacher"],
    dataset="synthetic",
    metric="best_possible_auc",
)

TABLE2 = Table(
    name="table2",
    title="Click-through prediction: test AUC and log loss",
    task="recsys",
    unit="AUC; nats a row",
    decimals=4,
    cells=(*_cells(("bp", "dfa")), TEACHER),
    source=f"{SOURCE}, Table 2",
    run=run,
    notes=(
        "The published figures of Criteo_x1 are those of BARS, by backpropagation, with models tuned by others.",
        OUR_RATES,
        "Teacher's log: 1,000,000 generated rows; nothing ranks them better than the teacher that drew them.",
    ),
    needs=NEEDS,
    time="1 core: 3 to 30 s a run on Adult and MovieLens-100K, 2 to 20 min on the teacher's log; Criteo: days",
)

TABLEA3 = Table(
    name="tableA3",
    title="Click-through prediction, shallow training: test AUC and log loss",
    task="recsys",
    unit="AUC; nats a row",
    decimals=4,
    cells=_cells(("shallow",)),
    source=f"{SOURCE}, Table A.3",
    run=run,
    notes=("DFA's models with the projection off: only what lies above the last feedback points learns.", OUR_RATES),
    needs=NEEDS,
    time="as Table 2",
)


def _alignment_cells() -> tuple[Cell, ...]:
    """The deepest layer on every data set, and the mean over all layers where we trained."""
    models = [model for model in MODELS if f"{model}_dfa" in PUBLISHED]
    columns = (
        ("criteo", "", "alignment_deepest"),
        ("adult", "", "alignment_deepest"),
        ("adult", ", mean over layers", "alignment"),
        ("ml-100k", "", "alignment_deepest"),
        ("ml-100k", ", mean over layers", "alignment"),
    )
    return tuple(
        Cell(
            row=MODELS[model],
            column=f"{DATASETS[dataset]}{what}",
            method="dfa",
            key=preset_name(model, "dfa", dataset),
            preset=PRESETS[preset_name(model, "dfa", dataset)],
            dataset=dataset,
            metric=metric,
            published=ALIGNMENT.get(model) if dataset == "criteo" else None,
        )
        for model in models
        for dataset, what, metric in columns
    )


TABLEA1 = Table(
    name="tableA1",
    title="Alignment of DFA's hidden gradients with backpropagation's",
    task="recsys",
    unit="cosine",
    decimals=2,
    cells=_alignment_cells(),
    source=f"{SOURCE}, Table A.1",
    run=run_alignment,
    notes=(
        "Mean over rows at the deepest DFA layer, as in the paper, on the last batch of the last epoch, dropout off. "
        "The paper measured on 512 rows of Criteo after 15 epochs; the others are ours.",
    ),
    needs="Criteo, Adult, MovieLens-100K",
    time="as a DFA run of Table 2",
)

EMBEDDING = Table(
    name="recsys-embedding",
    title="What embeddings learn from hidden layers that DFA trains: test AUC",
    task="recsys",
    unit="AUC",
    decimals=4,
    cells=tuple(
        Cell(
            row=f"{MODELS[model]}, {words}",
            column=f"{DATASETS[dataset]} AUC",
            method="dfa",
            key=f"{preset_name(model, 'dfa', dataset)}_embedding-{setting}",
            preset=replace(PRESETS[preset_name(model, "dfa", dataset)], embedding_feedback=setting),
            dataset=dataset,
            metric="test_auc",
        )
        for model in MODELS
        for setting, words in EMBEDDINGS.items()
        for dataset in ("adult", "ml-100k", "synthetic")
        if f"{model}_dfa" in PUBLISHED and (model in AS_RELEASED_OFF or (setting != "off" and dataset == "synthetic"))
    ),
    source="ours: the paper has no such table",
    run=run_embedding,
    notes=(
        "In the 2020 release the embeddings of DeepFM learn through the pairwise products alone, and those of AFN not "
        "at all: their feedback point is missing from the head's list. `--embedding-feedback on` gives them a signal.",
        "The error of a click is one number, so DFA's signal moves all embeddings along one fixed direction, by the "
        "mean error of the rows that have the category. Pairs of the teacher's log have effects without a mean over "
        "either partner: to such a signal they do not exist. `through`: no feedback point at the embeddings, which get "
        "the gradient of the first hidden layers, and with it the partners. Real logs have strong effects of single "
        "categories, and lose little.",
    ),
    in_quick=False,
    needs="Adult, MovieLens-100K; the teacher's log needs nothing",
    time="as a DFA run of Table 2",
)

TRIED_ON = {"adult": "Adult", "ml-100k": "MovieLens-100K", "synthetic": "teacher's log"}  # data sets, and the columns


def _rate_cells() -> tuple[Cell, ...]:
    """Our presets at every rate of their grid."""
    cells = [
        Cell(
            row=f"{MODELS[preset.model]}, {preset.lr:g}",
            column=TRIED_ON[dataset],
            method=str(preset.method),
            key=name,
            preset=preset,
            dataset=dataset,
            metric="val_auc",
        )
        for dataset, presets in TRIED.items()
        for name, preset in presets.items()
    ]
    return tuple(sorted(cells, key=lambda cell: (list(MODELS).index(cell.preset.model), cell.method)))


RATES_TABLE = Table(
    name="recsys-rates",
    title="Learning rates of the presets of our own: validation AUC",
    task="recsys",
    unit="AUC",
    decimals=4,
    cells=_rate_cells(),
    source="ours: one grid of rates for our own presets",
    run=run_rate,
    notes=(
        f"The same rates for every model and method, seed 0; of the teacher's log, {TRIED_ROWS:,} rows of it and fewer "
        "rates. The preset of a model and a method has the best.",
        "The presets of a million rows of the teacher's log are not in this grid: FM's and DeepFM's rate by "
        "backpropagation was the better of 0.001 and 0.003, and the others follow.",
    ),
    in_quick=False,
    needs="Adult, MovieLens-100K; the teacher's log needs nothing",
    time="3 to 60 s a run (1 core)",
)

TABLES: tuple[Table, ...] = (TABLE2, TABLEA3, TABLEA1, EMBEDDING, RATES_TABLE)
