"""Options from dataclasses: each is declared once, with its description, its type and its real default.

The fields of a task's preset are its options. A command's configuration holds a preset, and says which one is meant:

    @dataclass(frozen=True, kw_only=True)
    class Config(BaseConfig):
        preset: Flat[Preset]
        named: PresetName = None

        @staticmethod
        def choose(preset: str | None = None, model: str | None = None, method: str | None = None) -> Preset:
            return find_preset(name=preset, model=model, method=method)

`choose` is called first, with those of its parameters that were given as options. The preset that it returns supplies
the defaults of all options, so ``--help --model gat`` shows those of gat.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from harness.errors import UserError
from harness.presets import nearest
from harness.tables.results import plain

T = TypeVar("T")
# A dataclass in a configuration whose fields are options of the command, without a prefix.
Flat = Annotated[T, tyro.conf.arg(name="")]
# A field of a preset that is no option.
Fixed = tyro.conf.Suppress[tyro.conf.Fixed[T]]
# The name of a preset on the command line.
PresetName = Annotated[
    str | None, tyro.conf.arg(name="preset", help="A preset by its name, in place of the options that choose one.")
]
MARKS = (tyro.conf.EnumChoicesFromValues, tyro.conf.FlagCreatePairsOff)
FILE = "--config"
# What Python says of a word that is no number, and what an option wants in its place.
NUMBERS = {"invalid literal for int() with base 10": "a whole number", "could not convert string to float": "a number"}


def parse(config_class: type[T], words: Sequence[str]) -> T:
    """The words of a command line as a `config_class`; leaves with status 0 after --help.

    Args:
        config_class: A dataclass; its fields are the options, its docstrings the help. With a static method `choose`
            it has a field `preset`, see the module; with a method `check` that is told the names of the options that
            were typed.
        words: Without the program's name. ``--config FILE`` among them stands for the options in a YAML file; options
            that are typed override it.

    Raises:
        UserError: an option does not exist, has a value of the wrong kind, or the configuration refuses it.
    """
    takes_file = FILE[2:] in {field.name for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    path = _file_named(words) if takes_file else None
    settings = {} if path is None else _read(path)
    settings = {name: value for name, value in settings.items() if name not in getattr(config_class, "found", ())}
    before = [*_words(settings, {}), *words]
    chosen = _choose(config_class, before)
    default = None if chosen is None else config_class(preset=chosen)  # type: ignore[call-arg]
    shown = _flat(default) if default is not None else _defaults(config_class)
    _refuse_old(getattr(config_class, "renamed", {}), {*typed(words), *settings})
    _refuse_unknown(path, settings, shown)
    flags, others = _valued_flags(words, shown)
    config = _tyro(config_class, [*_words(settings | flags, shown), *others], default=default)
    if hasattr(config, "check"):
        config.check(typed(words))
    return config


def make(config_class: type[T], **options: Any) -> T:
    """A configuration from options by name, as `parse` makes it from words: ``make(Config, model="gat", seed=3)``."""
    choice = inspect.signature(config_class.choose).parameters  # type: ignore[attr-defined]
    preset = config_class.choose(**{name: options[name] for name in choice if name in options})  # type: ignore
    fields = {field.name for field in dataclasses.fields(preset)}
    own = {name: value for name, value in options.items() if name not in fields and name != "preset"}
    changes = {name: value for name, value in options.items() if name in fields}
    named = {"named": options["preset"]} if "preset" in options else {}
    return config_class(preset=dataclasses.replace(preset, **changes), **own, **named)  # type: ignore[call-arg]


def typed(words: Iterable[str]) -> frozenset[str]:
    """The names of the options among the words of a command line, as fields are written.

    Example:
        >>> sorted(typed(["--weight-decay=0", "--no-tied", "3"]))
        ['tied', 'weight_decay']
    """
    names = (word[2:].partition("=")[0].replace("-", "_") for word in words if word.startswith("--"))
    return frozenset(name.removeprefix("no_") for name in names)


def refuse_without_effect(names: Iterable[str], preset: Any, needs: Mapping[str, tuple[str, Sequence[Any]]]) -> None:
    """Raise `UserError` for an option that was typed and that does nothing in a run of `preset`.

    Args:
        names: Of the options that were typed.
        preset: What is to be trained.
        needs: Name of an option to the field that decides whether it has an effect, and the values with which it has.
    """
    for name in sorted(set(names) & needs.keys()):
        field, values = needs[name]
        if (value := getattr(preset, field)) not in values:
            raise UserError(
                f"{option(name)} has no effect with {option(field)} {plain(value)}, only with "
                f"{' or '.join(str(plain(value)) for value in values)}. Leave one of them out."
            )


def option(name: str) -> str:
    """How a field is called on the command line."""
    return "--" + name.replace("_", "-")


def _choose(config_class: type, words: Sequence[str]) -> Any:
    """The preset that the words select; None if the configuration has none."""
    if not hasattr(config_class, "choose"):
        return None
    preset, _ = _tyro(config_class.choose, words, return_unknown_args=True, add_help=False)
    return preset


def _tyro(target: Callable[..., Any], words: Sequence[str], **how: Any) -> Any:
    """Parse by tyro; its boxed error message becomes one sentence."""
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, args=words, config=MARKS, prog=_typed_as(), **how)
    except SystemExit as exit_:
        if exit_.code in (0, None):
            raise
    raise UserError(_unboxed(complaint.getvalue()))


def _typed_as() -> str | None:
    """What the user typed to start this command, such as ``python -m vision.train``; None for a script."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else "python -m " + spec.name.removesuffix(".__main__")


def _unboxed(panel: str) -> str:
    """The sentences of tyro's framed message, without frame, rules and its pointer to --help."""
    lines = [line.strip("│ ") for line in panel.splitlines()]
    words = [line for line in lines if line.strip("-") and line[0] not in "╭╰─"]
    words = words if "╭" in panel else words[1:]  # where the terminal knows no frames, the title is a line
    text = " ".join(line for line in words if not line.startswith("For full helptext")).replace(" .", ".")
    wrong = re.match(r"Error parsing ([^\s/:]+)\S*: (.+): ('.*') Argument helptext: ", text)
    if wrong and wrong[2] in NUMBERS:
        text = f"{wrong[1]} {wrong[3]}: give {NUMBERS[wrong[2]]}."
    return text + " (--help lists the options)"


def _file_named(words: Sequence[str]) -> Path | None:
    """The file of the last ``--config FILE`` or ``--config=FILE``; None without one."""
    pairs = [word.partition("=")[::2] for word in words]
    found = [
        value or (words[i + 1] if i + 1 < len(words) else "") for i, (name, value) in enumerate(pairs) if name == FILE
    ]
    return Path(found[-1]).expanduser() if found else None


def _read(path: Path) -> dict[str, Any]:
    """The options in a YAML file.

    Raises:
        UserError: it cannot be read, or holds no options.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{FILE} {path} cannot be read ({' '.join(str(error).split())}). Name a YAML file.") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise UserError(f"{FILE} {path} holds no options. Write one a line, such as `epochs: 100`.")
    return found


def _words(settings: Mapping[str, Any], shown: Mapping[str, Any]) -> Iterator[str]:
    """Settings as words of a command line. Flags, and what is None, are written where they differ from `shown`."""
    for name, value in settings.items():
        if isinstance(value, bool) or value is None or isinstance(value, dict):
            if name in shown and plain(shown[name]) != value:
                yield from _unlike(name, value)
        elif isinstance(value, list):
            yield from (option(name), *map(str, value))
        else:
            yield f"{option(name)}={value}"


def _valued_flags(words: Sequence[str], shown: Mapping[str, Any]) -> tuple[dict[str, bool], list[str]]:
    """The flags that are typed with a value, such as ``--tied True`` and ``--lower=False``; and the other words."""
    flags: dict[str, bool] = {}
    others: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        name, _, value = word.partition("=")
        field = name.removeprefix("--").replace("-", "_")
        is_flag = name.startswith("--") and isinstance(shown.get(field), bool)
        if is_flag and rest[:1] in (["True"], ["False"]):
            value = rest.pop(0)
        if is_flag and value in ("True", "False"):
            flags[field] = value == "True"
        else:
            others.append(word)
    return flags, others


def _unlike(name: str, value: Any) -> Iterator[str]:
    """The words for a flag, or for None, where the default differs."""
    if isinstance(value, bool):
        yield option(name) if value else f"--no-{name.replace('_', '-')}"
    elif value is None:
        yield from (option(name), "None")
    else:
        raise UserError(f"{FILE}: {name} is {value}, which no option says and the preset has otherwise.")


def _refuse_old(renamed: Mapping[str, str], names: Iterable[str]) -> None:
    for name in sorted(set(names) & renamed.keys()):
        raise UserError(f"{option(name)} is called {renamed[name]} now. Give that.")


def _refuse_unknown(path: Path | None, settings: Mapping[str, Any], shown: Mapping[str, Any]) -> None:
    for name in settings:
        if name not in shown:
            raise UserError(f"{FILE} {path}: {name} is no option of this command. {nearest(name, shown)}.")


def _flat(config: Any) -> dict[str, Any]:
    """The options of a configuration and their values."""
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    return vars(own.pop("preset")) | {"preset": own.pop("named", None)} | own


def _defaults(config_class: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(config_class)}
