"""The cache: a log is there whole or not at all, follows content and options, and a damaged one is noticed."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.errors import UserError
from recsys.data import load_clicks
from recsys.log import blocks as coded
from recsys.log import cache, prepare
from recsys.log.formats import Rule
from recsys.log.vocabulary import FieldEncoder
from tests.recsys.raw_logs import raw_rows, write_rows

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "recsys"


@pytest.fixture
def raw(tmp_path):
    return write_rows(tmp_path / "train.txt", raw_rows(400))


def finished(folder):
    return [path for path in folder.iterdir() if path.is_dir() and not path.name.endswith(".partial")]


def small_blocks(monkeypatch):
    monkeypatch.setitem(prepare.prepare.__kwdefaults__, "block_bytes", 9000)


KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.log import {module}
original, calls = {module}.{function}, []
def killer(*arguments):
    calls.append(1)
    if len(calls) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
{module}.{function} = killer
from recsys.log import prepare
prepare.prepare.__kwdefaults__["block_bytes"] = 9000
from recsys.data import load_clicks
load_clicks("criteo", criteo_file=Path(sys.argv[1]))
"""


@pytest.mark.parametrize(("module", "function"), [("prepare", "code_block"), ("prepare", "translate")])
def test_a_killed_preparation_leaves_nothing_that_looks_finished_and_the_next_one_succeeds(
    folder, raw, module, function, monkeypatch
):
    code = KILLED.format(module=module, function=function)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, str(raw)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    assert finished(folder) == []
    again = load_clicks("criteo", criteo_file=raw)
    assert len(finished(folder)) == 1
    monkeypatch.setenv("TINYDFA_CACHE", str(folder.parent.with_name("other")))
    undisturbed = load_clicks("criteo", criteo_file=raw)
    for part in ("train", "val", "test"):
        assert torch.equal(getattr(again, part).fields, getattr(undisturbed, part).fields)
        assert torch.equal(getattr(again, part).labels, getattr(undisturbed, part).labels)
    assert again.encoder.to_dict() == undisturbed.encoder.to_dict()


def test_an_interrupted_preparation_goes_on_with_the_blocks_it_has(folder, raw, monkeypatch):
    small_blocks(monkeypatch)
    parsed = []

    def counting(block, layout):
        parsed.append(block.first_line)
        if len(parsed) == 6:
            raise KeyboardInterrupt
        return original(block, layout)

    original = coded.parse
    monkeypatch.setattr(coded, "parse", counting)
    with pytest.raises(KeyboardInterrupt):
        load_clicks("criteo", criteo_file=raw)
    assert finished(folder) == []
    kept = len(list(folder.glob("*.partial/*.json")))
    assert kept >= 3
    before = len(parsed)
    load_clicks("criteo", criteo_file=raw)
    blocks = -(-raw.stat().st_size // 9000)
    assert len(parsed) - before in (blocks - kept, blocks - kept - 1)


def test_a_block_cut_short_is_coded_again(folder, raw, monkeypatch):
    small_blocks(monkeypatch)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "translate", stop)
        with pytest.raises(KeyboardInterrupt):
            load_clicks("criteo", criteo_file=raw)
    whole = sorted(folder.glob("*.partial/*.codes"))[0]
    whole.write_bytes(whole.read_bytes()[:-8])
    log = load_clicks("criteo", criteo_file=raw)
    assert int(log.train.fields.max()) < max(log.field_dims)
    assert len(log.train) == 320


def test_a_finished_log_holds_nothing_but_its_files(folder, raw):
    load_clicks("criteo", criteo_file=raw)
    (log,) = finished(folder)
    assert sorted(path.name for path in log.iterdir()) == sorted(
        ["encoder.json", "manifest.json"] + [f"{p}.{c}" for p in ("train", "val", "test") for c in ("fields", "labels")]
    )


def test_a_prepared_log_is_not_prepared_again(folder, raw, monkeypatch):
    first = load_clicks("criteo", criteo_file=raw)
    monkeypatch.setattr(cache, "prepare", lambda *a, **k: pytest.fail("prepared again"))
    assert torch.equal(load_clicks("criteo", criteo_file=raw).test.fields, first.test.fields)


def test_other_content_or_options_make_another_log(folder, raw):
    load_clicks("criteo", criteo_file=raw)
    for number, options in enumerate(
        [{"seed": 1}, {"min_count": 3}, {"binning": "log2"}, {"rows": 100}, {"binning": "log2", "rows": 100}], 2
    ):
        load_clicks("criteo", criteo_file=raw, **options)
        assert len(finished(folder)) == number
    before = raw.stat()
    content = raw.read_bytes()
    raw.write_bytes((b"1" if content[:1] == b"0" else b"0") + content[1:])
    os.utime(raw, ns=(before.st_atime_ns, before.st_mtime_ns))  # same path, size and time
    load_clicks("criteo", criteo_file=raw)
    assert len(finished(folder)) == 7


def test_a_moved_file_is_known_by_its_content(folder, raw, tmp_path):
    load_clicks("criteo", criteo_file=raw)
    load_clicks("criteo", criteo_file=raw.rename(tmp_path / "elsewhere.txt"))
    assert len(finished(folder)) == 1


@pytest.mark.parametrize("name", ["train.fields", "val.labels", "encoder.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_log_is_named_with_the_way_out(folder, raw, name, damage):
    load_clicks("criteo", criteo_file=raw)
    path = finished(folder)[0] / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[:-2] if damage == "cut" else b"#" + content[1:])
    with pytest.raises(UserError, match=rf"{path.parent}.*damaged|{path}.*damaged|cannot read {path}"):
        load_clicks("criteo", criteo_file=raw)


def test_samples_of_a_large_file_include_both_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "WHOLE_FILE", 100)
    monkeypatch.setattr(cache, "SAMPLE", 10)
    path = tmp_path / "large"
    content = bytearray(os.urandom(5000))
    path.write_bytes(content)
    prints = {cache.fingerprint(path)}
    for place in (0, 4999):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        prints.add(cache.fingerprint(path))
    path.write_bytes(content + b"x")
    prints.add(cache.fingerprint(path))
    assert len(prints) == 4
    path.write_bytes(content)
    assert cache.fingerprint(path) in prints


def test_a_disk_without_room_is_noticed_before_anything_is_written(folder, raw, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"takes about 0\.0 GB temporarily.*TINYDFA_CACHE"):
        load_clicks("criteo", criteo_file=raw)


def test_a_field_without_frequent_categories_has_one_id():
    field = FieldEncoder("C1", Rule.CATEGORY, np.zeros(0), np.zeros(0, dtype=np.int64))
    assert field.size == 1
    assert field.ids(np.array([5, 6])).tolist() == [0, 0]
