"""The picture of step times shows what was measured of the library's rules, and nothing else."""

from benchmarks import ratios_picture


def row(model: str, contestant: str, ratio: float, limit: float | None = None) -> dict:
    return {"model": model, "contestant": contestant, "ratio to BP": ratio, "limit": limit}


ROWS = [
    row("MLP, batch 8", "bp", 1.0),
    row("MLP, batch 8", "dfa", 0.7, 0.66),
    row("MLP, batch 8", "biotorch, dfa", 1.1),
    row("MLP, batch 8", "shallow", 0.3),
    row("GCN, evaluation included", "dfa", 1.04),
    row("MLP, batch 8", "dfa", 0.8, 0.66),
]


def test_peers_and_backpropagation_are_left_out_and_the_first_of_two_measurements_counts():
    found = [(found["contestant"], found["ratio to BP"]) for found in ratios_picture.ratios(ROWS)]
    assert sorted(found) == [("dfa", 0.7), ("shallow", 0.3)]


def test_two_machines_make_two_panels_of_one_png():
    image = ratios_picture.picture({"one": ROWS, "two": ROWS[:2]})
    assert image.startswith(b"\x89PNG")
