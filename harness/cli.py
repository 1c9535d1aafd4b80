"""From a dataclass to a command: parse the arguments, run, and leave with a status a script can rely on.

Exit status: 0 done; 2 the user's mistake, as one line on stderr; 1 anything else, with its traceback.
"""

import contextlib
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from harness.errors import UserError

Config = TypeVar("Config")


def run(config_class: type[Config], main: Callable[[Config], Any], argv: Sequence[str] | None = None) -> NoReturn:
    """Parse `argv` (default: the process's) into `config_class`, call `main` with it, and exit.

    Args:
        config_class: A dataclass; its fields are the options, its docstrings the help. Enums are given by value.
        main: What to do. What it returns is dropped.
        argv: The arguments without the program's name.
    """
    try:
        main(parse(config_class, argv))  # a config's own checks raise in here, too
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        from tinydfa import DFAError  # here: it loads torch, and not every command should wait for that

        if isinstance(error, UserError | DFAError):
            _leave(str(error))
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def parse(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The arguments as a `config_class`; leaves with status 0 after --help, 2 after a mistake."""
    import tyro

    marks = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(config_class, args=argv, config=marks)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
    _leave(_unboxed(complaint.getvalue()))


def _unboxed(panel: str) -> str:
    """The sentences of tyro's framed message, without frame, rules and its pointer to --help."""
    lines = [line.strip("│ ") for line in panel.splitlines()]
    words = [line for line in lines if line and line[0] not in "╭╰─" and not line.startswith("For full helptext")]
    return " ".join(words).replace(" .", ".") + " (--help lists the options)"


def _leave(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
