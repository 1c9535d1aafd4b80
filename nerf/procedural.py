"""Write the scene that needs no download, the solids of `nerf.data.solids`, into a folder in the Blender layout.

python -m nerf.procedural --out DIR --size 400
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.errors import UserError
from nerf.data.solids import SIZE, TEST_VIEWS, TRAIN_VIEWS, write_scene


@dataclass(frozen=True, kw_only=True)
class Config:
    """Ray-trace the solids into a folder in the Blender layout."""

    out: Path
    """A folder that does not exist yet."""
    size: int = SIZE
    """Pixels a side."""
    views: int = TRAIN_VIEWS
    """Training views."""
    test_views: int = TEST_VIEWS
    """Test views, from other places."""

    def __post_init__(self) -> None:
        for option, value in (("--size", self.size), ("--views", self.views), ("--test-views", self.test_views)):
            if value < 1:
                raise UserError(f"{option} {value}: give at least 1.")


def main(config: Config) -> None:
    """Write the scene, and say where."""
    write_scene(config.out, config.size, config.views, config.test_views)
    print(f"{config.out}: {config.views} training and {config.test_views} test views of {config.size}x{config.size}")


if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
