"""The command `python -m vision.linear`; see `vision.iacolippo.linear`."""

from vision.iacolippo.linear import Config, main

if __name__ == "__main__":
    from harness import cli

    cli.run(Config, main)
