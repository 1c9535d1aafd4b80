"""Small valid scenes of every format that `nerf` reads, and a checkpoint of the 2020 release."""

import io
import json
import math
import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nerf.data.load import load_scene
from nerf.field.release2020 import load_2020
from nerf.field.volume import render_view
from nerf.scene.poses import turntable
from nerf.scene.rays import training_rays, view_rays
from tests.fuzz.formats import Format

SIZES = ((8, 6), (6, 6), (10, 4))  # width and height


def picture(path: Path, rng: random.Random, size: tuple[int, int], mode: str) -> None:
    """Random pixels, written in the format of the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"L": 1, "I;16": 2, "RGB": 3, "RGBA": 4}[mode]
    pixels = rng.randbytes(size[0] * size[1] * channels)
    content = io.BytesIO()
    Image.frombytes(mode, size, pixels).save(content, {".jpg": "JPEG"}.get(path.suffix, path.suffix[1:].upper()))
    path.write_bytes(content.getvalue())


def matrices(rng: random.Random, count: int) -> list[list[list[float]]]:
    """Cameras around the origin, 4 x 4."""
    poses = turntable(count, rng.uniform(10, 50), rng.choice([0.5, 4.0, 30.0]))
    return [[*pose.tolist(), [0.0, 0.0, 0.0, 1.0]] for pose in poses]


def make_blender(folder: Path, rng: random.Random) -> Path:
    """Two files of cameras, PNG pictures, by file names without suffixes."""
    scene, size = folder / "nerf_synthetic" / "mine", rng.choice(SIZES)
    mode = rng.choice(["RGBA", "RGB"])
    for split, count in (("train", 5), ("test", 2)):
        frames = []
        for number, matrix in enumerate(matrices(rng, count)):
            picture(scene / split / f"r_{number}.png", rng, size, mode)
            frames.append({"file_path": f"./{split}/r_{number}", "rotation": 0.1, "transform_matrix": matrix})
        content = {"camera_angle_x": rng.uniform(0.4, 1.2), "frames": frames}
        (scene / f"transforms_{split}.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return folder


def make_transforms(folder: Path, rng: random.Random) -> Path:
    """One file of cameras with lenses in pixels, for all pictures or for each, of several kinds of pictures."""
    scene, (width, height) = folder / "nerf_synthetic" / "mine", rng.choice(SIZES)
    suffix, mode = rng.choice([("png", "RGB"), ("png", "I;16"), ("jpg", "RGB"), ("webp", "RGB"), ("tiff", "L")])
    lens = {"fl_x": 9.0, "fl_y": 9.5, "cx": width / 2 + 0.5, "cy": height / 2, "w": width, "h": height}
    lens |= {"k1": rng.uniform(-0.05, 0.05), "k2": 0.01, "p1": 0.001, "p2": -0.002}
    frames, own = [], rng.random() < 0.5
    for number, matrix in enumerate(matrices(rng, 9)):
        picture(scene / "images" / f"frame_{number:05d}.{suffix}", rng, (width, height), mode)
        frame = {"file_path": f"images/frame_{number:05d}.{suffix}", "transform_matrix": matrix}
        frames.append(frame | (lens if own else {}))
    content = {"camera_model": "OPENCV", "aabb_scale": 4, "frames": frames} | ({} if own else lens)
    text = json.dumps(content, indent=1)
    (scene / "transforms.json").write_text(text, encoding=rng.choice(["utf-8", "utf-8-sig"]))
    return folder


def make_llff(folder: Path, rng: random.Random) -> Path:
    """Photographs before a scene, or around it."""
    scene, (width, height) = folder / "nerf_llff" / "mine", rng.choice(SIZES)
    count, around = 9, rng.random() < 0.5
    rows = np.zeros((count, 17))
    for number, row in enumerate(rows):
        angle = 2 * math.pi * number / count if around else 0.1 * (number - 4)
        back, up = np.array([math.sin(angle), 0.0, math.cos(angle)]), np.array([0.0, 1.0, 0.0])
        right, size = np.cross(up, back), [4 * height, 4 * width, 5.0 * width]
        row[:15] = np.column_stack([-up, right, back, 3 * back, size]).ravel()
        row[15:] = 1.5, 6.0
        picture(scene / "images_4" / f"image{number:03d}.png", rng, (width, height), "RGB")
    np.save(scene / "poses_bounds.npy", rows)
    return folder


def make_checkpoint(folder: Path, rng: random.Random) -> Path:
    """Weights under the names of the release, in either of torch's formats."""
    generator = torch.Generator().manual_seed(rng.randrange(2**32))
    width, depth = 8, rng.choice([2, 4])
    sizes = {"layer1": (width, 63), "fc_alpha": (1, width), "fc_feat": (width, width), "fc_rgb": (3, width // 2)}
    sizes |= {f"layers_xyz.{number}": (width, width) for number in range(depth - 1)}
    sizes["layers_dir.0"] = (width // 2, width + 27)
    states = []
    for _ in range(2):
        weights = {f"{name}.weight": torch.randn(size, generator=generator) / 8 for name, size in sizes.items()}
        biases = {f"{name}.bias": torch.randn(size[0], generator=generator) for name, size in sizes.items()}
        states.append(weights | biases)
    content = {"iter": 7, "psnr": 18.0, "model_coarse_state_dict": states[0], "model_fine_state_dict": states[1]}
    path = folder / "old.ckpt"
    torch.save(content, path, _use_new_zipfile_serialization=rng.random() < 0.5)
    return path


def read_scene(dataset: str, root: Path) -> object:
    """A scene as `nerf.train` reads it, and the rays that it trains on; a number that is none is a fault."""
    scene = load_scene(dataset, "mine", root)
    rays, colours = training_rays(scene)
    for part in (*rays, colours, *view_rays(scene, scene.test, 0), scene.path, scene.bounds):
        assert bool(part.isfinite().all()), "a scene with a number that is none"
    return scene


def read_checkpoint(path: Path) -> object:
    """A checkpoint as `nerf.test` reads it, and what it sees of some rays."""
    fields = load_2020(path, white_background=True, samples_coarse=4, samples_fine=4)
    scene = load_scene("synthetic", None, None, size=4)
    colour = render_view(fields, view_rays(scene, scene.test, 0)).colour
    assert bool(colour.isfinite().all()), "a picture with a number that is none"
    return colour


FORMATS = {
    "blender": Format(make_blender, lambda root: read_scene("blender", root)),
    "transforms": Format(make_transforms, lambda root: read_scene("blender", root)),
    "llff": Format(make_llff, lambda root: read_scene("llff", root)),
    "checkpoint-2020": Format(make_checkpoint, read_checkpoint),
}
