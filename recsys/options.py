"""Options that exclude each other, or that would change nothing: refused before anything is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import UserError
from harness.methods import rule_of, slug
from recsys.presets import PRESETS, Preset
from tinydfa import Method

if TYPE_CHECKING:
    from recsys.config import RunConfig

FEW = 1_000_000  # rows to train on; the published experiments had 36 million
OWN = "own"  # the name of a user's table among the data sets
ABOUT_TABLE = ("label", "clicks", "numbers", "categories", "ignore")  # options that say what a table holds


def check_options(config: RunConfig) -> None:
    """Raise `UserError` for options about the data that exclude each other."""
    if config.criteo_file is not None and (config.dataset != "criteo" or config.table is not None):
        found = f"--dataset {config.dataset}" if config.table is None else f"--table {config.table}"
        raise UserError(
            f"--criteo-file {config.criteo_file}: this run takes {found}. Add --dataset criteo, or leave the file out."
        )
    given = [name for name in ABOUT_TABLE if getattr(config, name)]
    if config.table is None:
        if config.dataset == OWN or given:
            named = f"--dataset {OWN}" if not given else f"--{given[0]}"
            raise UserError(
                f"{named}: this is about a table of your own. Add --table FILE --label COLUMN, a CSV or Parquet file "
                "with named columns."
            )
        return
    if config.dataset not in ("synthetic", OWN):
        raise UserError(f"--table {config.table}: this run takes --dataset {config.dataset}. Leave out one of them.")
    if not config.label:
        raise UserError(f"--table {config.table}: which of its columns tells of a click? Add --label COLUMN.")
    _check_columns(config)


def _check_columns(config: RunConfig) -> None:
    """Raise `UserError` for a column of a table that is said to be two things."""
    roles = {name: getattr(config, name) for name in ("numbers", "categories", "ignore")} | {"label": (config.label,)}
    known: dict[str, str] = {}
    for option, columns in roles.items():
        for column in columns:
            if known.setdefault(column, option) != option:
                raise UserError(f"--{known[column]} {column}: --{option} names it as well. Leave out one of them.")


def check_preset_options(config: RunConfig, preset: Preset) -> None:
    """Raise `UserError` for options that would change nothing for the model and method of a preset."""
    if preset.model == "fm":
        for option, given in (
            ("dropout", config.dropout is not None),
            ("embedding-feedback", config.embedding_feedback is not None),
            ("alignment", config.alignment),
        ):
            if given:
                raise UserError(f"--{option}: FM has no hidden layer. Leave the option out, or choose another --model.")
    if config.embedding_feedback is not None and not rule_of(preset.method).broadcasts:
        raise UserError(
            f"--embedding-feedback {config.embedding_feedback}: {preset.method} sends no signal of its own to "
            "the embeddings. Leave the option out, or choose dfa, sdfa, tdfa or drtp."
        )
    if config.alignment and preset.method is Method.BP:
        raise UserError(
            "--alignment: backpropagation is compared with itself. Choose another --method, or leave it out."
        )


def check_share(batch: int, processes: int) -> None:
    """Raise `UserError` if a batch has not a row for every process."""
    if batch < processes:
        raise UserError(f"--batch {batch}: {processes} processes share its rows. Give at least {processes}.")


def small_log_hint(config: RunConfig, preset: Preset, rows: int) -> str:
    """What to say where the published settings meet a log of few training rows, on which they learn little."""
    chosen = config.preset is not None or config.lr is not None
    if chosen or not config.source.startswith("criteo") or rows >= FEW:
        return ""
    name = f"{preset.model}_{slug(preset.method)}_{OWN}"
    way_out = f"--preset {name}" if name in PRESETS else "--lr 0.003 --batch 128"
    return (
        f"{rows} rows to train on are few for the published settings (learning rate {preset.lr:g}), which are for 36 "
        f"million. Try {way_out}."
    )
