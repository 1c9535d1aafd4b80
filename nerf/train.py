"""Train the radiance field of one scene by one method.

    python -m nerf.train --dataset blender --scene lego --method dfa
    python -m nerf.train --preset small_dfa --dataset blender --scene lego
    accelerate launch --num_processes 2 -m nerf.train --dataset blender --scene lego --method dfa

Every step takes random rays of all training views. The test views choose nothing: they are scored once, at the end.
Settings are chosen by validation views (`--val-views`), which are neither trained on nor among the test views.
"""

from __future__ import annotations

from typing import Any

import torch

from harness import processes
from harness.device import pick_device
from harness.errors import UserError
from harness.methods import check_shares
from harness.precision import check_precision
from harness.processes import Processes
from harness.run import NullRun, Run
from harness.run.allocator import keep_freed_memory
from harness.run.launch import check_launch
from harness.seeds import seed_everything
from nerf.config import Config
from nerf.curves import Curves
from nerf.data.load import load_scene
from nerf.field.fields import Fields
from nerf.field.occupancy import OccupancyGrid
from nerf.output.pictures import kept_pictures
from nerf.output.scores import evenly, means, score_views
from nerf.presets import PRESETS, Preset
from nerf.scene.rays import training_rays
from nerf.scene.views import Scene
from nerf.step import GRID_EVERY, check_share, drawing, make_grid, train_step, update_grid
from tinydfa import Attachment, Feedback, attach


def train(config: Config, run: Run | None = None, scene: Scene | None = None) -> dict[str, Any]:
    """Train as `config` says.

    Args:
        config: The run.
        run: Its folder; None: it leaves none.
        scene: The scene, if it was loaded already.

    Returns:
        The result (see `harness.tables.results.make_result`), with curves.

    Raises:
        UserError: an impossible configuration, missing or damaged data, or a loss that is not finite.
    """
    preset, device, group = config.preset, pick_device(config.device), processes.current()
    scene = (scene or load(config)).to(device)
    run = run or NullRun("nerf", config.settings() | scene.facts())
    seed_everything(config.seed)
    fields = Fields(preset.architecture(), preset.rendering(scene.white_background)).to(device)
    attachments = attach_all(fields, preset.method, config.seed, config.keeps(preset.method))
    optimizer = torch.optim.Adam(fields.parameters(), preset.lr, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, preset.rate)
    grid = skip_empty(fields, scene, preset)
    rays, colours = training_rays(scene)
    curves = Curves(config, fields, scene, rays, colours)
    state: dict[str, Any] = {"fields": fields, "optimizer": optimizer, "scheduler": scheduler}
    state |= attachments | grid | curves.state()
    done = run.resume(state)
    if config.compile:
        compile_all(fields)
    for step in run.track(curves.steps(done), f"{scene.name}, {preset.method}", preset.steps - done):
        generator = drawing(config.seed, step, device)
        sizes: dict[str, Any] = {"batch": preset.rays, "chunk": curves.chunk, "processes": group}
        errors = train_step(fields, rays, colours, optimizer, generator, **sizes)
        curves.add(errors)
        run.show(errors[1])
        scheduler.step()
        if grid and step % GRID_EVERY == 0:
            update_grid(grid["grid"], fields)
        if curves.logs(step) or curves.aligns(step) or curves.saves(step):
            with curves.paused(step):
                curves.log(step, run)
                if curves.saves(step):
                    run.save(step, **state)

    scores, views = score(fields, scene, preset, curves.chunk, group)
    found = curves.history.curves() | views
    if config.keep_pictures:
        found["pictures"] = kept_pictures(fields, scene, curves.chunk, group)
    return run.finish(model="nerf", metrics=scores | curves.history.metrics(), curves=found, device=device)


def attach_all(fields: Fields, method: str, seed: int, memory: str | int | None = None) -> dict[str, Attachment]:
    """Make both networks learn by `method`, each with feedback of its own."""
    found = {}
    for number, (name, network) in enumerate(fields.networks().items()):
        feedback = Feedback(seed=2 * seed + number)
        attachment = attach(network, method, output=network.output, feedback=feedback, memory=memory)
        processes.tell_scale(attachment)
        found[f"attachment of {name}"] = attachment
    return found


def skip_empty(fields: Fields, scene: Scene, preset: Preset) -> dict[str, OccupancyGrid]:
    """Let the fields skip the empty space of a scene, if the preset says so; the grid that knows it, as "grid"."""
    if not preset.skip_empty:
        return {}
    grid = make_grid(scene.bounds, preset.samples_coarse)
    fields.occupied = grid.occupied
    return {"grid": grid}


def compile_all(fields: Fields) -> None:
    """Compile both networks; batches differ in size between training and scoring."""
    for network in fields.networks().values():
        network.compile(dynamic=True)


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


def load(config: Config) -> Scene:
    """The scene of `config`, at the size of its preset; one process of several reads it.

    Raises:
        UserError: missing or damaged data, fewer views than are to be scored, or too few rays for all processes.
    """
    keep_freed_memory()
    preset, device, group = config.preset, pick_device(config.device), processes.current()
    check_launch("nerf", preset.precision, config.compile)
    check_precision(preset.precision, device)
    check_share(preset.rays, config.chunk_on(device), group)
    check_shares(preset.method, group.size)
    options = preset.reading() | {"val_views": preset.val_views}
    scene = group.once(lambda: load_scene(config.dataset, config.scene, config.data_dir, **options))
    check_views(config, scene)
    return scene


def check_views(config: Config, scene: Scene) -> None:
    """Raise `UserError` where more views are asked for than there are; a number that nobody typed stands for all."""
    for name, views in (("test_views", scene.test), ("val_views", scene.val)):
        asked = getattr(config.preset, name)
        usual = {getattr(preset, name) for preset in PRESETS.values()}
        meant = name in config.typed or asked not in usual
        if meant and asked is not None and views is not None and asked > len(views):
            raise UserError(f"--{name.replace('_', '-')} {asked}: the scene has {len(views)}. Give fewer.")


if __name__ == "__main__":
    from harness.command import command

    command("nerf", Config, load, train, about=Scene.facts)
