"""Small scenes in the published formats, and cameras seen the other way round: from points to pixels."""

import json
import math

import numpy as np
import torch
from PIL import Image

IDENTITY = [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 1.0, 0], [0, 0, 0, 1.0]]


def write_image(path, pixels):
    """A PNG of uint8 [H, W, 3 or 4]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path)


def write_blender(folder, train, test, poses=None, angle=math.pi / 2):
    """A scene in the Blender format, from lists of uint8 pictures; `poses` of training views, else the identity."""
    for split, pictures in (("train", train), ("test", test)):
        frames = []
        for index, pixels in enumerate(pictures):
            write_image(folder / split / f"r_{index}.png", pixels)
            matrix = poses[index] if poses is not None and split == "train" else IDENTITY
            frames.append({"file_path": f"./{split}/r_{index}", "rotation": 0.1, "transform_matrix": matrix})
        content = {"camera_angle_x": angle, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def write_llff(folder, rows, pictures, name="images_4"):
    """A scene in the LLFF format, from rows of poses_bounds.npy and a list of uint8 pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "poses_bounds.npy", rows)
    for index, pixels in enumerate(pictures):
        write_image(folder / name / f"image{index:03d}.png", pixels)
    return folder


def llff_row(right, up, back, position, size=(24, 32, 40.0), depths=(2.0, 10.0)):
    """A row of poses_bounds.npy from a camera's axes; `size` is height, width and focal length of the original."""
    columns = [-np.asarray(up, float), right, back, position, size]
    return np.concatenate([np.stack(columns, axis=1).astype(float).ravel(), depths])


def project(points, pose, focal, height, width):
    """Pixel coordinates of points [P, 3], (column, row) [P, 2] measured from the upper left corner, and depths [P]."""
    inside = (points.double() - pose[:, 3].double()) @ pose[:, :3].double()
    depth = -inside[:, 2]
    return torch.stack([width / 2 + focal * inside[:, 0] / depth, height / 2 - focal * inside[:, 1] / depth], 1), depth


def is_seen(image):
    """The pixels that are not white, to half a shade of 8 bits: an average of white is white but for its rounding."""
    return (image < 1 - 0.5 / 255).any(dim=2)


def visual_hull(views, half, cells=40):
    """The points of a grid over [-half, half]^3 that are inside the silhouette in every view, white being outside."""
    ticks = torch.linspace(-half, half, cells)
    points = torch.cartesian_prod(ticks, ticks, ticks)
    kept = torch.ones(len(points), dtype=torch.bool)
    for image, pose in zip(views.images, views.poses, strict=True):
        pixel, _ = project(points, pose, float(views.focal[0, 0]), views.height, views.width)
        column, row = pixel.floor().long().unbind(1)
        inside = (column >= 0) & (column < views.width) & (row >= 0) & (row < views.height)
        seen = is_seen(image)[row.clamp(0, views.height - 1), column.clamp(0, views.width - 1)]
        kept &= seen | ~inside  # a solid may leave the picture
    return points[kept]


def covered(views, index, points):
    """The share of a silhouette's pixels that a cloud of points covers, with a neighbourhood of one pixel."""
    pixel, _ = project(points, views.poses[index], float(views.focal[0, 0]), views.height, views.width)
    column, row = pixel.floor().long().unbind(1)
    inside = (column >= 0) & (column < views.width) & (row >= 0) & (row < views.height)
    cloud = torch.zeros(views.height, views.width)
    cloud[row[inside], column[inside]] = 1
    cloud = torch.nn.functional.max_pool2d(cloud[None], 3, stride=1, padding=1)[0] > 0
    silhouette = is_seen(views.images[index])
    return float((cloud & silhouette).sum() / silhouette.sum())
