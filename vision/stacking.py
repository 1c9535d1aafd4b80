"""The command `python -m vision.stacking`; see `vision.iacolippo.stacking`."""

from vision.iacolippo.stacking import Config, main

if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
