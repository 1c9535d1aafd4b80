"""The table and the picture of simulated schedules."""

from time import process_time

import pytest

from benchmarks.timelines import Config, main, table, times_for, where_it_ends
from harness.errors import UserError


def test_a_row_says_how_long_a_step_is_and_what_a_stage_holds():
    rows = table(Config(most=4, per_stage=(1.0,)))
    assert [(row["network"], row["P"], row["M"]) for row in rows] == [
        ("fast", 2, 2),
        ("fast", 4, 4),
        ("slow", 2, 2),
        ("slow", 4, 4),
    ]
    fast = rows[1]
    assert fast["BP, 1F1B"] == pytest.approx(3 * 7, rel=0.05)  # sending adds a little
    assert fast["DFA, overlapped"] == pytest.approx(2 * 4, rel=0.05)
    assert fast["overlapped / 1F1B"] == pytest.approx(8 / 21, rel=0.05)
    assert fast["DFA, overlapped, replay"] == pytest.approx(3 * 4, rel=0.05)
    graphs = [fast[f"memory, {name}"] for name in ("BP, 1F1B", "DFA, overlapped", "DFA, overlapped, replay", "DRTP")]
    assert graphs == ["64 to 16", "64 to 64", "20 to 20", "16 to 16"]  # a graph is 16 activations
    assert (fast["held, BP, 1F1B"], fast["held, DFA, overlapped"], fast["held, DRTP"]) == ("4 to 1", "4 to 4", "1 to 1")


def test_an_error_passes_one_level_of_the_tree_after_another():
    assert times_for("dfa flush", 9, 0.5, Config(error=3.0)).broadcast == pytest.approx(0.5 * 3 * 4)
    assert times_for("dfa flush", 2, 0.5, Config(left=0.5)).of("W", 0) == 1.5
    assert times_for("1f1b", 2, 0.5, Config(left=0.5)).of("B", 0) == 2.0


def test_where_the_advantage_ends_is_said_for_each_network():
    few = where_it_ends(table(Config(most=4, per_stage=(1.0,))))
    assert few.startswith("On the fast network DFA gains in every row")
    assert "On the slow network DFA gains in every row" in few
    large = where_it_ends(table(Config(most=4, per_stage=(4.0,), error=9.0)))
    assert "On the fast network DFA gains in every row" in large
    assert "On the slow network it gains nothing in 2 of 2 rows, the first with P = 2 and M = 8" in large


def test_the_table_up_to_256_stages_is_made_in_seconds():
    start = process_time()
    rows = table(Config(most=256, per_stage=(1.0,)))
    assert process_time() - start < 60
    assert [row["P"] for row in rows if row["network"] == "slow"] == [2, 4, 8, 16, 32, 64, 128, 256]


def test_the_picture_and_the_table_are_written(tmp_path, capsys):
    main(Config(most=2, stages=2, microbatches=3, figure=tmp_path / "new" / "a.svg", out=tmp_path / "table.json"))
    assert (tmp_path / "new" / "a.svg").read_text().count("<path") > 2 * 2 * 3 * 2  # a bar for each F and W at least
    assert (tmp_path / "table.md").is_file()
    assert "Units of a step" in capsys.readouterr().out


def test_impossible_sizes_are_refused():
    with pytest.raises(UserError, match="must be above 0"):
        Config(stages=0)
    with pytest.raises(UserError, match="a share from 0 to 1"):
        Config(left=2.0)
