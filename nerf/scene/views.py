"""What a data set provides: pictures, the cameras that took them, and the box of the scene.

Letters: N views, H rows, W columns, M poses of a video's path. A pose is camera-to-world, ``[3, 4]``, rotation and
position, in OpenGL's axes: x to the right, y up, and the camera looks along -z. For lenses see `nerf.scene.lens`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from harness.errors import UserError
from nerf.scene.lens import Lens


@dataclass(frozen=True)
class Views:
    """Pictures of one size and their cameras."""

    images: Tensor  # float32 [N, H, W, 3] in 0..1; transparent pixels on the scene's background
    poses: Tensor  # float32 [N, 3, 4]
    lens: Lens  # of pictures of this size
    names: tuple[str, ...]  # of the files, without folder and suffix

    def __len__(self) -> int:
        return len(self.images)

    @property
    def height(self) -> int:
        """Rows of a picture."""
        return self.images.shape[1]

    @property
    def width(self) -> int:
        """Columns of a picture."""
        return self.images.shape[2]

    @property
    def focal(self) -> Tensor:
        """Focal lengths in pixels, across and down: ``[N, 2]``, or ``[1, 2]`` where all views have one lens."""
        return self.lens.focal

    def to(self, device: torch.device | str) -> Views:
        """The same on `device`, in torch's default type."""
        kind = torch.get_default_dtype()
        return replace(self, images=self.images.to(device, kind), poses=self.poses.to(device, kind))

    def rows(self, chosen: Tensor) -> Views:
        """Those views of all for which `chosen`, bool ``[N]``, is true."""
        names = tuple(name for name, is_chosen in zip(self.names, chosen.tolist(), strict=True) if is_chosen)
        return Views(self.images[chosen], self.poses[chosen], self.lens.rows(chosen), names)


@dataclass(frozen=True)
class Scene:
    """One scene, ready to train on."""

    name: str
    train: Views
    test: Views
    near: float  # where a ray begins and ends, in units of its direction; 0 and 1 if `ndc`
    far: float
    white_background: bool  # behind the scene; else black
    ndc: bool  # the network sees normalised device coordinates (`nerf.scene.rays.to_ndc`)
    path: Tensor  # float32 [M, 3, 4], poses for a video: a turntable, a spiral in front of the scene, or the cameras
    bounds: Tensor  # float32 [2, 3], lower and upper corner of a box around all rays, in the network's coordinates
    val: Views | None = None  # validation views, if asked for: neither trained on nor tested

    def facts(self) -> dict[str, Any]:
        """What the configuration of a run says of it."""
        return {"scene": self.name, "white_background": self.white_background}

    def to(self, device: torch.device | str) -> Scene:
        """The same on `device`, in torch's default type."""
        kind = torch.get_default_dtype()
        return replace(
            self,
            train=self.train.to(device),
            test=self.test.to(device),
            path=self.path.to(device, kind),
            bounds=self.bounds.to(device, kind),
            val=None if self.val is None else self.val.to(device),
        )


def held_out(scene: Scene, count: int) -> Scene:
    """The scene with `count` of its training views, evenly chosen, as `Scene.val` in place of training views.

    The first training view stays one, because normalised device coordinates are those of its camera.

    Raises:
        UserError: that is more than half of them.
    """
    total = len(scene.train)
    if count > total // 2:
        raise UserError(
            f"--val-views {count}: {scene.name} has no validation views of its own, and of its {total} training views "
            f"at most half are held out. Give {total // 2} or less, or leave it out."
        )
    held = torch.zeros(total, dtype=torch.bool)
    held[[(2 * index + 1) * total // (2 * count) for index in range(count)]] = True
    return replace(scene, train=scene.train.rows(~held), val=scene.train.rows(held))
