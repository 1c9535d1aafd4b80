"""The command `python -m vision.linear`; see `vision.iacolippo.linear`."""

from vision.iacolippo.linear import ALONE, Config, load, train_and_draw

if __name__ == "__main__":
    from harness.command import command

    command("vision", Config, load, train_and_draw, alone=ALONE)
