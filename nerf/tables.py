"""Neural view synthesis as tables: Tables 1 and A.5 of arXiv 2006.12878, Figure A.1, and small runs for a CPU.

The published numbers are of pictures 800 pixels wide, or 1008, and of 200,000 to 500,000 steps. Another table is
our own, with smaller pictures and fewer steps, the same for every method, and with the networks that the
paper's authors trained by DFA and released.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace
from time import perf_counter
from typing import Any

from harness.data import data_root
from harness.device import pick_device
from harness.errors import UserError
from harness.precision import fastest
from harness.tables import Cell, RunContext, Table
from harness.tables.grids import or_diverged
from harness.tables.results import make_result, slim
from nerf import published, train
from nerf.config import Config
from nerf.data import blender, llff
from nerf.data.load import load_scene
from nerf.field.release2020 import load_2020, pixel_offset
from nerf.output.pictures import kept_pictures
from nerf.output.scores import evenly, means, score_views
from nerf.presets import PRESETS, RATES, TRIED, TRIED_LENGTH, small_preset

SOURCE = "arXiv 2006.12878"
SETS = {  # family of presets, row of Table 1 and scenes, in the order of the published table
    "nerf_synthetic": (
        "synthetic",
        "NeRF-Synthetic",
        [scene for scene in published.BY_SCENE if scene in blender.NAMES],
    ),
    "nerf_llff": ("real", "LLFF-Real", [scene for scene in published.BY_SCENE if scene in llff.NAMES]),
}
METHODS = ("bp", "dfa", "shallow")
LEARNED = ("fitted", "fdfa")  # of the small table, beside those of the paper
SMALL = {"solids": "generated solids", "lego": "lego", "fern": "fern"}  # scene: row
TRIED_ON = {  # small presets without their method: the scenes that their rates are chosen on, and its methods
    "": (("lego", "fern"), METHODS + LEARNED),
    "_2x128": (("solids",), ("bp", "dfa")),
}
CHECKPOINTS = {"lego": "synth_lego_dfa.ckpt", "fern": "real_fern_dfa.ckpt"}
QUICK: dict[str, Any] = {
    "size": 50,
    "width": 64,
    "samples_coarse": 16,
    "samples_fine": 16,
    "rays": 256,
    "steps": 200,
    "test_views": 2,
}


def dataset_of(scene: str) -> str:
    """The data set that has a scene."""
    if scene == "solids":
        return "synthetic"
    return "llff" if scene in llff.NAMES else "blender"


def run_scene(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train one scene, at the length of the cell's preset."""
    return slim(_train(cell, cell.dataset, seed, context))


def run_mean(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train all scenes of a set one after another; the result is that of the last with means over all.

    At scale "quick" there is one scene.
    """
    if context.scale == "quick":
        return run_scene(cell, seed, context)
    _, _, scenes = SETS[cell.dataset]
    results = [_train(cell, scene, seed, context) for scene in scenes]
    metrics = {name: statistics.fmean(result["metrics"][name] for result in results) for name in results[0]["metrics"]}
    seconds = sum(result["seconds"] for result in results)
    return slim(results[-1] | {"dataset": cell.dataset, "metrics": metrics, "seconds": seconds})


def run_small(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train one scene small."""
    return slim(_train(cell, cell.dataset, seed, context, small=True, keep_pictures=seed == 0))


def run_rate(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Train one scene at one of the rates that were tried; few points of the curves, which take time."""
    return slim(_train(cell, cell.dataset, seed, context, small=True, log_every=100))


def _train(
    cell: Cell, scene: str, seed: int, context: RunContext, *, small: bool = False, **options: Any
) -> dict[str, Any]:
    """Train a cell's preset on a scene.

    Args:
        cell: Its preset and its length.
        scene: Name of the scene; at scale "quick" the embedded one takes its place.
        seed: Seed of the run.
        context: Scale, device and data root.
        small: The preset is a small one. Others have their method's small preset at scale "quick".
        **options: Fields of `Config`.
    """
    if context.epochs is not None:
        raise UserError("--epochs has no meaning for a radiance field. Use nerf.train with --steps.")
    preset = replace(cell.preset, **cell.length)
    dataset: dict[str, Any] = {"dataset": dataset_of(scene), "scene": scene}
    if context.scale == "quick":
        preset = replace(preset if small else small_preset(preset.method), **QUICK)
        dataset = {"dataset": "synthetic"}
    if small or context.scale == "quick":
        preset = replace(preset, precision=fastest(pick_device(context.device)))
    place: dict[str, Any] = {"data_dir": context.data_dir, "device": context.device}
    return train.train(Config(preset=preset, seed=seed, **dataset, **place, **options))


def run_released(cell: Cell, seed: int, context: RunContext) -> dict[str, Any]:
    """Score the released network of a scene on the test views of the small runs."""
    if context.scale == "quick":
        raise UserError("nerf-released scores networks for lego and fern, so it has no small form. Leave out --scale.")
    small = PRESETS["small_dfa"]
    path = data_root(context.data_dir) / "nerf_2020_checkpoints" / CHECKPOINTS[cell.dataset]
    scene = load_scene(dataset_of(cell.dataset), cell.dataset, context.data_dir, size=small.size)
    fields = load_2020(path, white_background=scene.white_background)
    offset = pixel_offset(scene.test.width, scene.ndc)
    chosen = evenly(len(scene.test), small.test_views)
    start = perf_counter()
    views = score_views(fields, scene, chosen, chunk=1024, offset=offset)
    curves: dict[str, Any] = {"views": views, "pictures": kept_pictures(fields, scene, 1024)}
    result = make_result(
        task="nerf",
        model="nerf",
        dataset=cell.dataset,
        method="dfa",
        seed=seed,
        metrics=means(views),
        seconds=perf_counter() - start,
        config={"checkpoint": path.name, "size": small.size},
        device="cpu",
        curves=curves,
    )
    return slim(result)


def _scenes(methods: Iterable[str]) -> tuple[Cell, ...]:
    return tuple(
        Cell(
            row=scene,
            column="PSNR",
            method=method,
            key=f"{family}_{method}",
            preset=PRESETS[f"{family}_{method}"],
            dataset=scene,
            metric="test_psnr",
            published=published.by_scene(scene, method),
        )
        for family, _, scenes in SETS.values()
        for scene in scenes
        for method in methods
    )


def _others(data: str) -> str:
    """The published numbers of systems that are no radiance fields, in words."""
    found = published.TABLE_1[data]
    return ", ".join(f"{name} {found[name]}" for name in ("NV", "SRN", "LLFF") if name in found)


TABLE1 = Table(
    name="table1",
    title="Neural view synthesis, mean over scenes: PSNR",
    task="nerf",
    unit="dB",
    decimals=2,
    cells=tuple(
        Cell(
            row=row,
            column="PSNR",
            method=method,
            key=f"{family}_{method}",
            preset=PRESETS[f"{family}_{method}"],
            dataset=dataset,
            metric="test_psnr",
            published=published.TABLE_1[family].get(method),
        )
        for dataset, (family, row, _) in SETS.items()
        for method in METHODS
    ),
    source=f"{SOURCE}, Table 1 (BP: arXiv 2003.08934)",
    run=run_mean,
    notes=(f"Other systems, published: synthetic {_others('synthetic')}; real {_others('real')}.",),
    in_quick=False,
    needs="all scenes of nerf_synthetic and nerf_llff",
    time="a run: at most 7 h, by the time of a larger network's step on one NVIDIA H200",
)

TABLEA5 = Table(
    name="tableA5",
    title="Neural view synthesis, scene by scene: PSNR",
    task="nerf",
    unit="dB",
    decimals=2,
    cells=_scenes(METHODS),
    source=f"{SOURCE}, Table A.5 (BP: arXiv 2003.08934)",
    run=run_scene,
    notes=("Pictures 800 pixels wide (real: 1008), 4 layers of 128 units.",),
    in_quick=False,
    needs="scenes of nerf_synthetic and nerf_llff at full size",
    time="as a run of Table 1",
)

NERF_SMALL = Table(
    name="nerf-small",
    title="Neural view synthesis at 100 pixels: PSNR and SSIM on test views",
    task="nerf",
    unit="dB; SSIM",
    decimals=2,
    cells=tuple(
        Cell(
            row=row,
            column=column,
            method=str(PRESETS[f"small_{method}{size}"].method),
            key=f"small_{method}{size}",
            preset=PRESETS[f"small_{method}{size}"],
            dataset=scene,
            metric=metric,
        )
        for scene, row, size, methods in (
            *((scene, row, "", METHODS + LEARNED) for scene, row in SMALL.items()),
            ("solids", "generated solids, 2 layers", "_2x128", ("bp", "dfa")),
            *((scene, f"{scene}, error at the trunk", "_trunk", ("dfa", *LEARNED)) for scene in ("lego", "fern")),
        )
        for method in methods
        for metric, column in (("test_psnr", "PSNR"), ("test_ssim", "SSIM"))
    ),
    source="ours: the paper has no such table",
    run=run_small,
    notes=(
        "The same for every method: 1,500 steps of 384 rays, 32 + 64 samples, 4 layers of 128 units (2 where a row "
        "says so), bfloat16 where the processor has it. Learning rates: table `nerf-rates`.",
        "Error at the trunk: it is taken at the top of the trunk, 128 numbers a sample, so that the layers of colour "
        "and density are exact; rates as without.",
        "FDFA has 0.003. At 0.01, its best after 400 steps, fern and the solids diverge later.",
    ),
    needs="nothing for the solids; nerf_synthetic/lego, nerf_llff/fern",
    time="4 to 8 min a run (1 core)",
)

NERF_RATES = Table(
    name="nerf-rates",
    title=f"Learning rates of the small rows: PSNR on validation views after {TRIED_LENGTH['steps']} steps",
    task="nerf",
    unit="dB",
    decimals=2,
    cells=tuple(
        Cell(
            row=f"{SMALL[scene]}, 2 layers" if size else SMALL[scene],
            column=f"{preset.lr:g}",
            method=str(PRESETS[f"small_{method}{size}"].method),
            key=tried,
            preset=preset,
            dataset=scene,
            metric="val_psnr",
        )
        for size, (scenes, methods) in TRIED_ON.items()
        for scene in scenes
        for method in methods
        for tried, preset in TRIED[f"small_{method}{size}"].items()
    ),
    source="ours: how the rates of `nerf-small` were chosen",
    run=or_diverged("nerf", run_rate),
    notes=(
        f"The same rates for every method, {', '.join(f'{rate:g}' for rate in RATES)}, seed 0, "
        f"{TRIED_LENGTH['steps']} steps of the rows' 1,500. The preset of a method has the rate of the "
        "best mean over scenes; 4 layers have one for lego, fern and solids.",
        f"{TRIED_LENGTH['val_views']} validation views, which are neither trained on nor tested: lego's own, and of "
        "the other scenes training views that are held out.",
    ),
    in_quick=False,
    needs="nothing for the solids; nerf_synthetic/lego, nerf_llff/fern",
    time="1 to 1.5 min a run (1 core)",
)

FORWARD_ROWS = {
    "small_fdfa_fast": "FDFA, learning rate 0.01",
    "small_fdfa_often": "FDFA, one look in 25 passes",
    "small_fdfa_passes": "FDFA, one look in 100, four passes with noise each",
}
NERF_FORWARD = Table(
    name="nerf-forward",
    title="What feedback from forward passes lacks: PSNR on lego at 100 pixels",
    task="nerf",
    unit="dB",
    decimals=2,
    cells=tuple(
        Cell(
            row=row,
            column="PSNR",
            method=str(PRESETS[key].method),
            key=key,
            preset=PRESETS[key],
            dataset="lego",
            metric="test_psnr",
        )
        for key, row in FORWARD_ROWS.items()
    ),
    source="ours: no paper has such a table",
    run=run_small,
    notes=(
        "All else as in `nerf-small`, whose FDFA has the rate 0.003 and one look in 100, of one pass with noise. "
        "0.01 is its best on lego after 400 steps (table `nerf-rates`), and diverges on the other scenes.",
    ),
    in_quick=False,
    needs="nerf_synthetic/lego",
    time="4 min a run (1 core)",
)

RELEASED = Table(
    name="nerf-released",
    title="The networks that the paper's authors trained by DFA, scored at 100 pixels",
    task="nerf",
    unit="dB; SSIM",
    decimals=2,
    cells=tuple(
        Cell(
            row=SMALL[scene],
            column=column,
            method="dfa",
            key=f"released_{scene}",
            dataset=scene,
            metric=metric,
        )
        for scene in CHECKPOINTS
        for metric, column in (("test_psnr", "PSNR"), ("test_ssim", "SSIM"))
    ),
    source="ours: scores of the released checkpoints by our renderer",
    run=run_released,
    notes=(
        "Trained for 200,000 steps (fern) and 500,000 (lego) on pictures of 1008 and 800 pixels, of which these are "
        "averages. The fine network alone is scored, on the test views of the small runs.",
    ),
    in_quick=False,
    needs="nerf_synthetic/lego, nerf_llff/fern, nerf_2020_checkpoints/*.ckpt of the release",
    time="1 min (1 core)",
)

FIGURE_A1 = Table(
    name="figureA1",
    title="A tiny radiance field, 2 hidden layers of 128 units: PSNR",
    task="nerf",
    unit="dB",
    decimals=2,
    cells=tuple(
        Cell(
            row="lego",
            column="PSNR",
            method=method,
            key=f"tiny_{method}",
            preset=PRESETS[f"tiny_{method}"],
            dataset="lego",
            metric="test_psnr",
        )
        for method in METHODS
    ),
    source=f"{SOURCE}, Figure A.1",
    run=run_scene,
    notes=("The paper draws curves, of which no value could be read. Their like is in the report: PSNR over steps.",),
    in_quick=False,
    needs="nerf_synthetic/lego",
    time="a day a run (1 core), not measured to its end",
)

TABLES: tuple[Table, ...] = (TABLE1, TABLEA5, NERF_SMALL, NERF_RATES, NERF_FORWARD, RELEASED, FIGURE_A1)
