"""Scenes by the name of their data set.

    synthetic   solids that the project ray-traces itself; needs no files
    blender     nerf_synthetic/<scene>/ below the data root: cameras in JSON, also those of other programs
    llff        nerf_llff/<scene>/ below the data root

A scene that is not found is looked for in the published archives (`nerf.data.archives`).
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import UserError
from nerf.data import blender, llff, solids
from nerf.data.archives import find_scene
from nerf.data.images import Background
from nerf.scene.views import Scene, held_out

DATASETS = ("synthetic", "blender", "llff")
DEFAULT_SCENES = {"synthetic": solids.NAME, "blender": "lego", "llff": "fern"}


def load_scene(
    dataset: str,
    scene: str | None,
    data_dir: Path | None,
    *,
    size: int | None = None,
    near: float | None = None,
    far: float | None = None,
    background: Background | None = None,
    val_views: int | None = None,
) -> Scene:
    """Read a scene, or make it.

    Args:
        dataset: "synthetic", "blender" or "llff".
        scene: Name of the scene; None: "solids", "lego" or "fern".
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        size: Width of the pictures; None: as stored, which for "synthetic" is 100. Pictures are averaged down, never
            up; "synthetic" is traced anew at sizes above 100.
        near: Where rays begin, in the units of the scene's file; of "blender" alone. None: see `nerf.data.blender`.
        far: Where they end.
        background: What is behind the scene; not of "synthetic". None: white if its pictures have an alpha channel.
        val_views: Read the scene's validation views too, or, if it has none of its own, hold out that many training
            views for them. None: no validation views.

    Returns:
        The scene, on the CPU.

    Raises:
        UserError: an unknown name, a size that does not fit, or a file that is missing or malformed.
    """
    if dataset not in DATASETS:
        raise UserError(f"--dataset {dataset}: no such data set. There are {', '.join(DATASETS)}.")
    if size is not None and size < 1:
        raise UserError(f"--size {size}: give at least 1.")
    check_options(dataset, near, far, background)
    name = DEFAULT_SCENES[dataset] if scene is None else scene
    if dataset == "synthetic":
        if name != solids.NAME:
            raise UserError(f"--scene {name}: the synthetic data set has one scene, {solids.NAME}. Leave it out.")
        found = blender.read_blender(solids.cached_scene(max(size or 0, solids.SIZE)), size)
    elif dataset == "blender":
        folder = find_scene("nerf_synthetic", name, data_dir, blender.NAMES)
        wanted = val_views is not None
        found = blender.read_blender(folder, size, near=near, far=far, background=background, validation=wanted)
    else:
        found = llff.read_llff(find_scene("nerf_llff", name, data_dir, llff.NAMES), size, background=background)
    return found if val_views is None or found.val is not None else held_out(found, val_views)


def default_scene(dataset: str) -> str:
    """The default scene of a data set; empty for an unknown one."""
    return DEFAULT_SCENES.get(dataset, "")


def check_options(dataset: str, near: float | None, far: float | None, background: Background | None) -> None:
    """Refuse options that a data set does not take.

    Raises:
        UserError: such an option is given.
    """
    why = {
        "synthetic": "the solids have their own. Leave it out",
        "llff": "poses_bounds.npy has them. Leave it out",
    }
    for option, value in (("--near", near), ("--far", far), ("--background", background)):
        if value is not None and dataset in why and (dataset, option) != ("llff", "--background"):
            raise UserError(f"{option} {value} with --dataset {dataset}: {why[dataset]}.")
