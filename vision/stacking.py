"""The command `python -m vision.stacking`; see `vision.iacolippo.stacking`."""

from vision.iacolippo.stacking import ALONE, Config, load, stack

if __name__ == "__main__":
    from harness.command import command

    command("vision", Config, load, stack, alone=ALONE)
