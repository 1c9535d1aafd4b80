"""Train the radiance field of one scene by one method.

    python -m nerf.train --dataset blender --scene lego --method dfa
    python -m nerf.train --preset small_dfa --dataset blender --scene lego
    accelerate launch --num_processes 2 -m nerf.train --dataset blender --scene lego --method dfa

Every step takes random rays of all training views. The test views choose nothing: they are scored once, at the end.
Settings are chosen by validation views (`--val-views`), which are neither trained on nor among the test views.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch

from harness import processes
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import check_compile, named, slug
from harness.precision import Precision, check_precision
from harness.processes import Processes
from harness.run import NullRun, Run, check_loss, read_config
from harness.run.allocator import keep_freed_memory
from harness.run.checkpoint import read_checkpoint
from harness.run.launch import check_launch
from harness.run.memory import MemoryConfig
from harness.seeds import seed_everything
from nerf import config
from nerf.data.images import Background
from nerf.data.load import load_scene
from nerf.field.fields import Fields
from nerf.field.volume import render_view
from nerf.output.pictures import kept_pictures
from nerf.output.scores import evenly, means, score_views
from nerf.presets import Preset, find_preset
from nerf.scene.rays import pick, training_rays, view_rays
from nerf.scene.views import Scene
from nerf.step import GRID_EVERY, History, check_share, drawing, make_grid, train_step, update_grid
from tinydfa import Attachment, Feedback, attach

CURVE_PIXELS = 1024  # of each of the two test views behind the curve of a run

CACHED_SAMPLES = 8192  # whose activations stay in the cache of a CPU: a step takes a quarter less time than all at once


@dataclass(frozen=True, kw_only=True)
class Config(config.RunConfig, MemoryConfig):
    """Train a radiance field. Settings that are left out come from the preset."""

    preset: str | None = None
    """A named preset, such as small_dfa or synthetic_dfa; the published one of the data set if left out."""
    steps: int | None = None
    """Steps; the learning rate's decay stretches with them."""
    size: int | None = None
    """Width of the pictures in pixels; they are averaged down to it."""
    rays: int | None = None
    """Rays a step."""
    samples_coarse: int | None = None
    """Samples a ray for the coarse network."""
    samples_fine: int | None = None
    """More samples a ray, for the fine network; 0: there is none."""
    width: int | None = None
    """Units of a hidden layer."""
    depth: int | None = None
    """Hidden layers of the trunk."""
    density: Literal["relu", "softplus"] | None = None
    """What makes a density of the network's output: relu, as published, or softplus, which cannot die."""
    lr: float | None = None
    """Learning rate at the first step."""
    precision: Precision | None = None
    """bf16: products of numbers rounded to bfloat16."""
    skip_empty: bool = False
    """Ask no network about places that were found to be empty."""
    near: float | None = None
    """Where rays begin, in the units of the cameras' file; by the cameras if left out."""
    far: float | None = None
    """Where rays end."""
    background: Background | None = None
    """What is behind the scene; white if left out and the pictures have an alpha channel, else black."""
    test_views: int | None = None
    """Test views that are scored at the end; the preset's number, usually all, if left out."""
    val_views: int | None = None
    """Validation views that are scored at the end, as val_psnr: of transforms_val.json if the scene has it, else held
    out of its training views."""
    chunk: int | None = None
    """Rays that are worked on at once; if left out 4096, or on a CPU what fits its cache."""
    compile: bool = False
    """Compile both networks first."""
    keep_pictures: bool = False
    """Keep a test view and a film in the result, for the report."""
    log_every: int | None = None
    """Steps between two points of the curves; a 20th of all if left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for option in ("steps", "chunk", "log_every"):
            if getattr(self, option) is not None and getattr(self, option) < 1:
                raise UserError(f"--{option.replace('_', '-')} {getattr(self, option)}: give at least 1.")

    def resolve(self) -> Preset:
        """The preset that these arguments mean."""
        preset = find_preset(name=self.preset, method=self.method, dataset=self.dataset)
        self.keeps(preset.method)  # said now if it cannot be
        shared = {field.name for field in fields_of(Config)} & {field.name for field in fields_of(Preset)}
        given = {name: getattr(self, name) for name in shared - {"method"}}
        return replace(
            preset, **{name: value for name, value in given.items() if value is not None and value is not False}
        )


def train(
    config: Config,
    run: Run | None = None,
    scene: Scene | None = None,
    device: torch.device | None = None,
    preset: Preset | None = None,
) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        scene: The scene, if it was loaded already.
        device: The device, if it was picked already.
        preset: Its settings; None: those that `config` means.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves.

    Raises:
        UserError: an impossible configuration, missing or damaged data, or a loss that is not finite.
    """
    preset, device, group = preset or config.resolve(), device or pick_device(config.device), processes.current()
    scene = (scene or load_preset_scene(preset, config)).to(device)
    run = run or NullRun("nerf", resolved(config, preset, scene))
    seed_everything(config.seed)
    stateful = make_stateful(preset, scene, config.seed, device, config.keeps(preset.method))
    fields, optimizer, scheduler = (stateful[name] for name in ("fields", "optimizer", "scheduler"))
    history, done, pending = History(), 0, torch.zeros(2, device=device)
    if (state := run.restore()) is not None:
        done, history, pending = state["step"], History(**state["history"]), state["pending"].to(device)
        for name, thing in stateful.items():
            thing.load_state_dict(state[name])
    if config.compile:
        check_compile(preset.method)
        for network in fields.networks().values():
            network.compile(dynamic=True)  # training, scoring and rests of batches differ in size

    rays, colours = training_rays(scene)
    chunk, log_every = chunk_of(config, preset, device), config.log_every or max(preset.steps // 20, 1)
    check_share(preset.rays, chunk, group)
    steps, begin = range(done + 1, preset.steps + 1), perf_counter()
    for step in run.track(steps, f"{scene.name}, {preset.method}"):
        generator = drawing(config.seed, step, device)
        sizes: dict[str, Any] = {"batch": preset.rays, "chunk": chunk, "processes": group}
        pending += train_step(fields, rays, colours, optimizer, generator, **sizes)
        scheduler.step()
        if preset.skip_empty and step % GRID_EVERY == 0:
            update_grid(stateful["grid"], fields)
        logs = step % log_every == 0 or step == preset.steps
        saves = step % config.checkpoint_every == 0 or step == preset.steps
        history.rays += preset.rays
        if not (logs or saves):
            continue
        check_loss(pending.sum().item(), step)  # waits for the device
        history.seconds += perf_counter() - begin
        if logs:
            coarse, fine = (pending / (step - (history.step or [0])[-1])).tolist()
            numbers = history.add(step, coarse, fine, curve_error(fields, scene, chunk, group))
            pending.zero_()
            run.log(step, **numbers)
        if saves:
            run.save(step, **stateful, history=asdict(history), pending=pending)
        begin = perf_counter()

    scores, views = score(fields, scene, preset, chunk, group)
    numbers = {"train_psnr": history.train_psnr[-1], "rays_per_second": history.rays_per_second()}
    pictures = {"pictures": kept_pictures(fields, scene, chunk, group)} if config.keep_pictures else {}
    curves = history.curves() | views | pictures
    return run.finish(model="nerf", metrics=scores | numbers, curves=curves, device=device)


def make_stateful(
    preset: Preset, scene: Scene, seed: int, device: torch.device, memory: str | int | None = None
) -> dict[str, Any]:
    """All that a checkpoint keeps the state of: `fields`, `optimizer`, `scheduler`, attachments, and any `grid`."""
    fields = Fields(preset.architecture(), preset.rendering(scene.white_background)).to(device)
    optimizer = torch.optim.Adam(fields.parameters(), preset.lr, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, preset.rate)
    stateful: dict[str, Any] = {"fields": fields, "optimizer": optimizer, "scheduler": scheduler}
    stateful |= attach_all(fields, preset.method, seed, memory)
    if preset.skip_empty:
        stateful["grid"] = make_grid(scene.bounds, preset.samples_coarse)
        fields.occupied = stateful["grid"].occupied
    return stateful


def attach_all(fields: Fields, method: str, seed: int, memory: str | int | None = None) -> dict[str, Attachment]:
    """Make both networks learn by `method`, each with feedback of its own."""
    return {
        f"attachment of {name}": attach(network, method, feedback=Feedback(seed=2 * seed + number), memory=memory)
        for number, (name, network) in enumerate(fields.networks().items())
    }


def score(
    fields: Fields, scene: Scene, preset: Preset, chunk: int, group: Processes
) -> tuple[dict[str, float], dict[str, Any]]:
    """Mean scores of the test views, and of the validation views if the preset has some; and those of every view."""
    tested = score_views(fields, scene, evenly(len(scene.test), preset.test_views), chunk=chunk, processes=group)
    if preset.val_views is None:
        return means(tested), {"views": tested}
    assert scene.val is not None
    chosen = evenly(len(scene.val), preset.val_views)
    validated = score_views(fields, scene, chosen, views=scene.val, chunk=chunk, processes=group)
    return means(tested) | means(validated, "val"), {"views": tested, "val_views": validated}


@torch.no_grad()
def curve_error(fields: Fields, scene: Scene, chunk: int, group: Processes) -> float:
    """Mean squared error on evenly spaced pixels of two test views, for a curve."""
    parts = []
    for index in evenly(len(scene.test), 2):
        truth = scene.test.images[index].reshape(-1, 3)
        pixels = torch.tensor(evenly(len(truth), CURVE_PIXELS), device=truth.device)
        rays = pick(view_rays(scene, scene.test, index), pixels)
        seen = render_view(fields, rays, chunk=chunk, processes=group)
        parts.append((seen.colour - truth[pixels]).square())
    return torch.cat(parts).mean().item()


def chunk_of(config: Config, preset: Preset, device: torch.device) -> int:
    """Rays worked on at once."""
    cached = max(CACHED_SAMPLES // (preset.samples_coarse + preset.samples_fine), 1)
    return config.chunk or (cached if device.type == "cpu" else 4096)


def load_preset_scene(preset: Preset, config: Config) -> Scene:
    """The scene of `config`, at the size of the preset."""
    options = reading_options(preset) | {"val_views": preset.val_views}
    scene = load_scene(config.dataset, config.scene, config.data_dir, **options)
    for option, asked, views in (
        ("--test-views", config.test_views, scene.test),
        ("--val-views", config.val_views, scene.val),
    ):
        if asked is not None and views is not None and asked > len(views):
            raise UserError(f"{option} {asked}: the scene has {len(views)}. Give fewer.")
    return scene


def reading_options(preset: Preset) -> dict[str, Any]:
    """What of a preset decides how a scene is read: arguments of `load_scene`."""
    return {name: getattr(preset, name) for name in ("size", "near", "far", "background")}


def resolved(config: Config, preset: Preset, scene: Scene) -> dict[str, Any]:
    """All that decided the run: the preset, the scene and the seed."""
    about = {"dataset": config.dataset, "scene": scene.name, "white_background": scene.white_background}
    return vars(preset) | about | {"seed": config.seed, "chunk": config.chunk, "compile": config.compile}


def read_settings(folder: Path) -> dict[str, Any]:
    """What `resolved` said of the run in `folder`.

    Raises:
        UserError: there is no run of this task.
    """
    settings = read_config(Path(folder), "Give the folder of a run of nerf.train")
    if not {"samples_coarse", "dataset", "scene", "method"} <= set(settings):
        raise UserError(f"{Path(folder) / 'config.yaml'} is not of a run of nerf.train. Give the folder of one.")
    return settings


def load_run(folder: Path, device: torch.device | str = "cpu") -> tuple[Fields, Preset]:
    """The fields that a run trained, as of its last checkpoint, and its preset.

    Raises:
        UserError: there is no run of this task in `folder`, or it has no checkpoint yet.
    """
    settings = read_settings(folder)
    content = read_checkpoint(Path(folder))
    if content is None:
        raise UserError(f"{folder} has no checkpoint yet. Let the run come to one, or start it again with --resume.")
    names = {field.name for field in fields_of(Preset)}
    path = Path(folder) / "config.yaml"
    try:
        preset = Preset(**{k: v for k, v in settings.items() if k in names} | {"method": named(settings["method"])})
        fields = Fields(preset.architecture(), preset.rendering(settings["white_background"]))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not what a run writes ({error}). Give the folder of another.") from error
    try:
        fields.load_state_dict(content["state"]["fields"])
        if preset.skip_empty:
            state = content["state"]["grid"]
            grid = make_grid(state["bounds"], preset.samples_coarse)
            grid.load_state_dict(state)
            fields.occupied = grid.to(device).occupied
    except (KeyError, TypeError, RuntimeError) as error:
        why = " ".join(str(error).split())[:100]
        raise UserError(f"{path} and the checkpoint beside it do not go together ({why}). Give another run.") from error
    return fields.to(device), preset


def main(config: Config) -> None:
    """Run the command."""
    keep_freed_memory()
    preset = config.resolve()
    check_launch("nerf", preset.precision, config.compile)
    device = processes.join(config.device)
    check_precision(preset.precision, device)
    check_share(preset.rays, chunk_of(config, preset, device), processes.current())
    # before the folder is made: a missing file should not leave one behind
    scene = processes.current().once(lambda: load_preset_scene(preset, config))
    name = f"{config.preset or slug(preset.method)}-{config.dataset}-{scene.name}-{config.seed}"
    settings = resolved(config, preset, scene) | {"device": config.device, "data_dir": config.data_dir}
    with Run("nerf", name, settings, config.out, config.resume) as run:
        train(config, run, scene, device)
    processes.leave()


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
