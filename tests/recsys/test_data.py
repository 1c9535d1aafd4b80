"""Click logs by name: what several processes read, and how a log's options are counted."""

import json

import pytest

from harness.errors import UserError
from harness.processes import current
from recsys import data as module
from recsys.data import DataOptions, load_once
from tests.processes import in_two_processes

ROWS = 500


def load_as_rank(rank, folder):
    """Load the synthetic log in a cache of the test's; note who read it and what every process has."""
    readers = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYDFA_CACHE", str(folder / "cache"))
        read = module.load_clicks
        patch.setattr(module, "load_clicks", lambda *a, **k: readers.append(rank) or read(*a, **k))
        log = load_once(DataOptions(rows=ROWS))
        sums = [[int(part.fields.long().sum()), int(part.labels.sum())] for part in (log.train, log.val, log.test)]
    found = {"readers": readers, "sums": sums, "best": log.best_auc, "ids": log.encoder.fingerprint, "name": log.name}
    everybody = current().gather(found)
    if rank == 0:
        (folder / "found.json").write_text(json.dumps(everybody))


def fail_as_rank(rank, folder):
    """A file that is not there is an error in every process, so that none waits for another."""
    try:
        load_once(DataOptions(dataset="criteo", criteo_file=folder / "none.txt"))
    except UserError as error:
        (folder / f"error-{rank}").write_text(str(error))


def test_of_several_processes_the_first_reads_the_log_for_all(tmp_path):
    in_two_processes(load_as_rank, tmp_path)
    first, second = json.loads((tmp_path / "found.json").read_text())
    assert (first.pop("readers"), second.pop("readers")) == ([0], [])
    assert second == first
    assert 0.5 < first["best"] < 1


def test_a_log_that_cannot_be_read_is_an_error_in_every_process(tmp_path):
    in_two_processes(fail_as_rank, tmp_path)
    said = [(tmp_path / f"error-{rank}").read_text() for rank in (0, 1)]
    assert said[0] == said[1]
    assert "Criteo's click log is not there" in said[0]


def test_a_process_alone_reads_the_log_itself():
    log = load_once(DataOptions(rows=ROWS))
    assert len(log.train) + len(log.val) + len(log.test) == ROWS
    assert log.folder.is_dir()
