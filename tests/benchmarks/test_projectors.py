"""What projects, measured: only a stored matrix takes memory between two steps."""

from benchmarks.projectors import Config, measure


def test_feedback_that_is_never_stored_takes_no_memory_between_steps():
    rows = {row["feedback"]: row for row in measure(Config(vocabulary=300, width=32, blocks=1, rounds=2))}
    assert rows["dfa, stored"]["stored MiB"] == round(300 * 32 * 4 / 2**20, 2)
    assert rows["dfa, never stored"]["stored MiB"] == 0
    assert all(row["ms a step"] > 0 for row in rows.values())
