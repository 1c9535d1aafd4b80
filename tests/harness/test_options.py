"""Options are the fields of the preset that is meant, and a file may give them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from harness.config import BaseConfig
from harness.errors import UserError
from harness.options import Flat, PresetName, make, parse, refuse_without_effect


@dataclass(frozen=True, kw_only=True)
class Preset:
    model: str
    """small or large."""
    lr: float = 0.1
    """Of Adam."""
    tied: bool = False
    """Share weights."""
    hidden: tuple[int, ...] = (8, 8)
    """Widths."""
    patience: int | None = None
    """Until it gives up."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise UserError(f"lr is {self.lr}; it must be above 0.")


SMALL = Preset(model="small")
PRESETS = {"small": SMALL, "large": replace(SMALL, model="large", lr=0.003, tied=True, patience=3)}


@dataclass(frozen=True, kw_only=True)
class Config(BaseConfig):
    """Train something."""

    renamed: ClassVar = {"rate": "--lr"}
    preset: Flat[Preset]
    named: PresetName = None
    dataset: str = "synthetic"
    """The data."""
    found = ("rows",)

    @staticmethod
    def choose(preset: str | None = None, model: str = "small") -> Preset:
        return PRESETS[preset or model]

    def check(self, typed: frozenset[str]) -> None:
        refuse_without_effect(typed, self.preset, {"hidden": ("model", ("large",))})


def written(folder: Path, text: str) -> list[str]:
    (folder / "o.yaml").write_text(text)
    return ["--config", str(folder / "o.yaml")]


def test_what_is_typed_overrides_the_preset_that_is_meant_and_nothing_else_does():
    assert parse(Config, []) == Config(preset=SMALL)
    assert parse(Config, ["--model", "large"]).preset == PRESETS["large"]
    found = parse(Config, ["--preset=large", "--hidden", "1", "2", "3", "--seed", "4", "--no-tied"])
    assert found == Config(
        preset=replace(PRESETS["large"], hidden=(1, 2, 3), tied=False), named="large", seed=4, config=None
    )


def test_help_shows_the_values_of_the_preset_that_the_other_options_mean(capsys):
    for words, lr, flag in ((["--help"], "0.1", "--tied"), (["--model", "large", "--help"], "0.003", "--no-tied")):
        with pytest.raises(SystemExit, match="0"):
            parse(Config, words)
        shown = " ".join(capsys.readouterr().out.split())
        assert f"--lr FLOAT Of Adam. (default: {lr})" in shown
        assert f"{flag} Share weights." in shown


@pytest.mark.parametrize(
    ("words", "tied"),
    [
        ("--tied True", True),
        ("--tied=True --seed 3", True),
        ("--tied False", False),
        ("--preset large --tied False", False),
        ("--preset large --tied=True", True),
        ("--tied --seed 3", True),
    ],
)
def test_a_flag_may_be_typed_with_a_value(words, tied):
    assert parse(Config, words.split()).preset.tied is tied


def test_a_flag_that_is_typed_with_a_value_overrides_the_file(tmp_path):
    file = written(tmp_path, "tied: true")
    assert parse(Config, file).preset.tied
    assert not parse(Config, [*file, "--tied", "False"]).preset.tied


def test_what_was_found_in_the_data_of_a_run_is_no_option(tmp_path):
    file = written(tmp_path, "rows: 12\nseed: 3")
    assert parse(Config, file).seed == 3


def test_python_makes_what_words_make():
    words = ["--model", "large", "--lr", "0.5", "--seed", "2", "--dataset", "other"]
    assert make(Config, model="large", lr=0.5, seed=2, dataset="other") == parse(Config, words)
    assert make(Config, preset="large") == parse(Config, ["--preset", "large"])


def test_an_option_without_effect_is_refused_only_where_it_was_typed(tmp_path):
    with pytest.raises(UserError, match="--hidden has no effect with --model small, only with large"):
        parse(Config, ["--hidden", "3"])
    assert parse(Config, written(tmp_path, "hidden: [3]")).preset.hidden == (3,)
    assert parse(Config, ["--model", "large", "--hidden=3"]).preset.hidden == (3,)


def test_a_file_gives_options_and_chooses_the_preset_and_what_is_typed_overrides_it(tmp_path):
    text = "model: large\nlr: 1.0e-05\ntied: false\nhidden: [1, 2]\npatience: null\nseed: 3\nout: null\nresume: true\n"
    file = written(tmp_path, text)
    found = parse(Config, [*file, "--lr", "0.5", "--dataset", "other"])
    preset = Preset(model="large", lr=0.5, tied=False, hidden=(1, 2), patience=None)
    assert found == Config(preset=preset, seed=3, resume=True, dataset="other", config=Path(file[1]))
    assert parse(Config, [f"--config={file[1]}"]).preset.lr == 1e-05


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rate: 3", "o.yaml: learning_rate is no option of this command. There are"),
        ("[1, 2]", "o.yaml holds no options. Write one a line"),
        ("lr: [1", "o.yaml cannot be read"),
        ("lr: many", "--lr"),
        ("lr: 0", "lr is 0.0; it must be above 0"),
        ("hidden: {a: 1}", "hidden is {'a': 1}, which no option says"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path, text, message):
    with pytest.raises(UserError) as complaint:
        parse(Config, written(tmp_path, text))
    assert message in str(complaint.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"--config .*gone\.yaml cannot be read .*Name a YAML file"):
        parse(Config, ["--config", str(tmp_path / "gone.yaml")])


def test_an_option_by_its_old_name_is_told_the_new_one(tmp_path):
    for words in (["--rate", "3"], ["--rate=3"], written(tmp_path, "rate: 3")):
        with pytest.raises(UserError, match="--rate is called --lr now"):
            parse(Config, words)


def test_a_flag_may_be_said_with_true_or_false_as_before():
    assert parse(Config, ["--tied", "True", "--seed", "3"]) == parse(Config, ["--tied", "--seed", "3"])
    assert parse(Config, ["--tied=True"]).preset.tied
    for words in (["--tied", "False"], ["--tied=False"]):
        assert not parse(Config, ["--model", "large", *words]).preset.tied
    assert parse(Config, ["--dataset", "True"]).dataset == "True"
