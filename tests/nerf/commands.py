"""The training command, from Python."""

from harness.command import run_command
from nerf.scene.views import Scene
from nerf.train import load, train


def start(config):
    """Train in a folder, as the command does."""
    return run_command("nerf", config, load, train, about=Scene.facts)
