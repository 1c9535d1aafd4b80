"""From a dataclass to a command: parse the arguments, run, and exit with a status that scripts can check.

Exit status: 0 done; 2 the user's mistake, as one line on stderr; 1 anything else, with its traceback.
"""

import dataclasses
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
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
        _obey(config_class, main, argv)
    finally:
        _pass_on()


def _obey(config_class: type[Config], main: Callable[[Config], Any], argv: Sequence[str] | None) -> NoReturn:
    try:
        _check_words(sys.argv[1:] if argv is None else argv)
        main(_expanded(parse(config_class, argv)))  # a config's own checks raise in here, too
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        if isinstance(error, BrokenPipeError):
            _pass_on("\n")  # exits if the reader of our output closed the pipe
        if isinstance(error, UserError) or _is_dfa_error(error):
            _leave(str(error))
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


def _is_dfa_error(error: Exception) -> bool:
    """Whether the library raised this error. Asked without importing the library, because that would load torch."""
    library = sys.modules.get("tinydfa")
    return library is not None and isinstance(error, library.DFAError)


def parse(config_class: type[Config], argv: Sequence[str] | None = None) -> Config:
    """The arguments as a `config_class` (see `harness.options.parse`); exits with status 0 after --help."""
    from harness import options

    return options.parse(config_class, sys.argv[1:] if argv is None else argv)


def _check_words(words: Sequence[str]) -> None:
    """Raise `UserError` for an empty value, which as a path would be the current folder, and for invalid UTF-8."""
    option = "an argument"
    for word in words:
        if not word or (word.startswith("--") and word.endswith("=")):
            raise UserError(f"{word.rstrip('=') or option} is empty. Give a value, or leave it out.")
        if not _is_text(word):
            raise UserError(f"{word!a} is not valid UTF-8. Use another name.")
        option = word if word.startswith("--") else option


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _expanded(config: Config) -> Config:
    """`config` with a leading ~ of its paths expanded: a shell does not expand it after `--out=`."""
    paths: dict[str, Any] = {}
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value = getattr(config, field.name)
        if isinstance(value, Path):
            paths[field.name] = _usable(value)
        elif isinstance(value, tuple) and any(isinstance(part, Path) for part in value):
            paths[field.name] = tuple(_usable(part) if isinstance(part, Path) else part for part in value)
    return dataclasses.replace(config, **paths) if paths else config  # type: ignore[type-var]


def _usable(path: Path) -> Path:
    """`path` without ~.

    Raises:
        UserError: there is no such user, or the system cannot look there.
    """
    try:
        path = path.expanduser()
        path.exists()
    except RuntimeError as error:
        raise UserError(f"{path}: no user of that name is known. Write the path out.") from error
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise UserError(f"{path}: {error.strerror}. Use another path.") from error
    return path


def _pass_on(more: str = "") -> None:
    """Flush stdout; exit silently with status 1 if the reader, such as `head`, has closed the pipe."""
    try:
        print(more, end="", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's flush at exit fails
        sys.exit(1)


def _leave(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(2)
