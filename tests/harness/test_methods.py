"""Methods by name: a rule in a file of the user's stands in commands, tables and figures like one of the library's."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

import nerf.config
import nlp.config
import recsys.config
from harness import methods
from harness.errors import UserError
from harness.options import make
from harness.presets import named_preset
from harness.tables import Cell, Table
from harness.tables.aggregate import with_methods
from harness.tables.results import given
from reproduce.render import grid
from tinydfa import Method

SOURCE = """
import tinydfa

class Clipped(tinydfa.Broadcast):
    label, colour = "Clipped DFA", "#123456"

    def encode(self, error, target):
        return error.clamp(-0.1, 0.1)
"""


@pytest.fixture
def mine(tmp_path) -> str:
    (tmp_path / "my_rules.py").write_text(SOURCE)
    return f"{tmp_path}/my_rules.py:Clipped"


def table(*names: str) -> Table:
    cells = [
        Cell(row="A", column="B", method=name, key=f"a_{name}", dataset="d", metric="m", published=1.0)
        for name in names
    ]
    return Table(name="t", title="T", task="fake", unit="%", cells=tuple(cells), source="s", run=lambda *_: {})


def test_a_rule_in_a_file_has_the_label_and_colour_that_it_says(mine):
    assert (methods.label(mine), methods.colour(mine), methods.slug(mine)) == ("Clipped DFA", "#123456", "Clipped")
    assert methods.named(mine) == mine
    assert methods.named("drtp") is Method.DRTP


def test_a_typo_is_answered_with_the_names():
    with pytest.raises(UserError, match=r"--method dfaa: unknown method 'dfaa'. Choose one of: bp, .*file\.py:Class"):
        methods.named("dfaa")


def test_results_of_a_rule_whose_file_is_gone_keep_their_name():
    assert methods.label("elsewhere/gone.py:Clipped") == "Clipped"
    assert methods.colour("elsewhere/gone.py:Clipped").startswith("#")


def test_brackets_in_the_folder_of_a_rule_are_no_options(tmp_path):
    folder = tmp_path / "rules (2)"
    folder.mkdir()
    (folder / "my_rules.py").write_text(SOURCE)
    assert methods.label(f"{folder}/my_rules.py:Clipped") == "Clipped DFA"


def test_a_rule_with_options_does_not_pass_for_the_one_without():
    names = ["fitted", "fitted(memory=0.5)", "fitted(memory=0)"]
    _, rows = grid(with_methods(table("dfa"), names), [])
    assert [row[1] for row in rows] == ["Fitted", "Fitted (memory=0.5)", "Fitted (memory=0)"]


def test_a_table_gets_the_rows_of_other_methods_with_the_settings_of_dfa(mine):
    found = with_methods(table("bp", "dfa"), ["bp", "dfa", mine])
    assert [(cell.method, cell.key, cell.published) for cell in found.cells] == [
        ("bp", "a_bp", 1.0), ("dfa", "a_dfa", 1.0), (mine, f"a_dfa+{mine}", None),
    ]  # fmt: skip
    _, rows = grid(found, [])
    assert [row[1] for row in rows] == ["BP", "DFA", "Clipped DFA"]
    assert with_methods(table("bp", "dfa"), []).cells == table("bp", "dfa").cells
    assert [cell.method for cell in with_methods(table("shallow", "bp"), ["bp"]).cells] == ["bp"]


@dataclass(frozen=True)
class Preset:
    method: str


def test_a_row_of_another_method_hands_the_preset_of_dfa_with_its_method(mine):
    cells = tuple(replace(cell, preset=Preset(Method.DFA), length={"epochs": 1}) for cell in table("dfa").cells)
    found = with_methods(replace(table("dfa"), cells=cells), ["drtp", mine, "dfa"])
    assert [cell.preset for cell in found.cells] == [Preset(Method.DRTP), Preset(mine), Preset(Method.DFA)]
    assert found.cells[0].preset.method is Method.DRTP
    assert type(found.cells[0].method) is str
    assert {tuple(cell.length.items()) for cell in found.cells} == {(("epochs", 1),)}
    assert len(dict.fromkeys(found.cells)) == 3  # cells are keys, whatever they carry


def test_a_preset_by_another_method_is_named_with_a_plus(mine):
    presets = {"a_dfa": Preset(Method.DFA)}
    assert named_preset(presets, f"a_dfa+{mine}", method=mine) == Preset(mine)
    with pytest.raises(UserError, match="no such preset"):
        named_preset(presets, "b_dfa+drtp")
    with pytest.raises(UserError, match="trains by drtp and --method says bp"):
        named_preset(presets, "a_dfa+drtp", method="bp")


def test_to_have_a_setting_that_is_none_is_not_to_have_it():
    before = {"lr": 0.1, "feedback": {"seed": 0, "threshold": None}, "epochs": None}
    assert given(before) == given({"lr": 0.1, "feedback": {"seed": 0, "projector": None}})
    assert given(before) != given({"lr": 0.1, "feedback": {"seed": 1}})


@pytest.mark.parametrize("method", ["fitted", "fdfa", "grape", "las", "fitted_forward", "calibrated"])
def test_a_rule_that_looks_is_not_compiled_and_the_command_says_so_first(method):
    refusal = rf"^--compile: {method} looks at some passes.*Leave out --compile"
    for task in (nlp.config.Config, recsys.config.Config, nerf.config.Config):
        assert make(task, method=method).preset.method == method
        with pytest.raises(UserError, match=refusal):
            make(task, method=method, compile=True)
    methods.check_compile("dkp")


OWN = """
import tinydfa

class Centred(tinydfa.Broadcast):
    def encode(self, error, target):
        return error - error.mean(0)

class Clipped(tinydfa.Broadcast):
    def encode(self, error, target):
        return error.clamp(-0.1, 0.1)

class Seven(tinydfa.Broadcast):
    def encode(self, error, target):
        return error * error.new_ones(7)

class Signs(tinydfa.rules.DKP):
    def encode(self, error, target):
        return error.sign()
"""


def test_a_rule_that_looks_at_the_whole_batch_is_refused_on_several_processes(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    own = {name: f"{tmp_path}/own.py:{name}" for name in ("Centred", "Clipped", "Seven", "Signs")}
    for method in (own["Centred"], "tdfa", "calibrated(rule='tdfa')", "les(similarity=0.99)"):
        methods.check_shares(method, 1)
        with pytest.raises(UserError, match="2 processes have a share of the batch each"):
            methods.check_shares(method, 2)
    with pytest.raises(UserError, match="2 processes would not learn what one does"):
        methods.check_shares(own["Signs"], 2)
    for method in (own["Clipped"], own["Seven"], "dfa", "drtp", "tdfa(threshold=0.1)", "les", "usf", "bp"):
        methods.check_shares(method, 2)
