"""Training: what it learns, what it reports, and that an interrupted run ends like one that was not interrupted."""

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from harness.command import command
from harness.errors import UserError
from harness.run import NullRun
from harness.run.launch import check_launch
from recsys import train as module
from recsys.config import check_share
from recsys.data import DataOptions
from recsys.evaluate import evaluate
from recsys.log.clicks import Clicks
from recsys.presets import PRESETS, PUBLISHED, find_preset
from recsys.train import Config, load, train
from recsys.training import Training
from tests.float64 import float64
from tests.recsys.runs import main, options
from tests.recsys.small import criteo, scripted, small
from tinydfa import Method

ROOT = Path(__file__).resolve().parents[2]


CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def log():
    return DataOptions(rows=10_000).load()


def auc(log, model, method):
    return train(options(model=model, method=method, epochs=4, batch=128, lr=1e-3), data=log)["metrics"]["test_auc"]


def test_backpropagation_learns_and_dfa_learns_more_than_shallow(log):
    bp, dfa, shallow = (auc(log, "deepfm", method) for method in (Method.BP, Method.DFA, Method.SHALLOW))
    assert bp > 0.62
    assert dfa > 0.62
    assert shallow < dfa - 0.02
    assert max(bp, dfa) < log.best_auc


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = (train(small(seed=seed))["curves"] for seed in (0, 0, 1))
    assert first == again
    assert first != other


class Fixed(torch.nn.Module):
    """A model that returns its first field as the logit."""

    def forward(self, fields):
        return fields[:, :1].float()


def test_scores_are_those_of_scikit_learn_over_the_whole_part(monkeypatch):
    monkeypatch.setattr("recsys.evaluate.AT_ONCE", 7)
    fields = torch.randint(-3, 4, (50, 2), generator=torch.Generator().manual_seed(0)).int()
    labels = (torch.arange(50) % 3 == 0).to(torch.uint8)
    score = evaluate(Fixed(), Clicks(fields, labels), CPU)
    assert score.auc == pytest.approx(roc_auc_score(labels, fields[:, 0]))
    assert score.log_loss == pytest.approx(log_loss(labels, torch.sigmoid(fields[:, 0].double())), rel=1e-6)


def test_rows_of_one_class_cannot_be_ranked():
    with pytest.raises(UserError, match="all 4 rows to be scored have the label 0"):
        evaluate(Fixed(), Clicks(torch.zeros(4, 1).int(), torch.zeros(4, dtype=torch.uint8)), CPU)


def test_the_loss_of_an_epoch_is_the_mean_over_its_rows():
    config = small(epochs=1, rows=1100, batch=256)  # 880 rows to train on: batches of 256, 256, 256, 112
    data, preset = config.load(), config.preset
    training = Training(preset, data.field_dims, CPU)
    losses = []
    step = training.step

    def noted(batch):
        losses.append((step(batch).item(), batch.rows))
        return torch.tensor(losses[-1][0])

    training.step = noted
    loss = module.train_epoch(training, data.train, config, NullRun("recsys", {}), {})
    assert [rows for _, rows in losses] == [256, 256, 256, len(data.train) - 768]
    assert loss == pytest.approx(sum(x for x, _ in losses) / len(data.train))


@pytest.mark.parametrize(
    ("aucs", "patience", "epochs", "best"),
    [
        ([0.5, 0.6, 0.55, 0.4, 0.7], 2, 4, 2),  # the patience runs out
        ([0.5, 0.6, 0.55], 5, 3, 2),  # the epochs run out, and the best weights come back all the same
        ([0.5, 0.6, 0.6, 0.6], 2, 4, 2),  # as good is not better
        ([0.5, 0.6, 0.7], 5, 3, 3),
    ],
)
def test_the_best_weights_are_tested_once(monkeypatch, aucs, patience, epochs, best):
    seen = scripted(monkeypatch, aucs)
    config = small(epochs=len(aucs), patience=patience)
    data = config.load()
    metrics = train(config, data=data)["metrics"]
    assert (metrics["epochs"], metrics["best_epoch"], metrics["val_auc"]) == (epochs, best, aucs[best - 1])
    assert [clicks is data.test for clicks, _ in seen] == [False] * epochs + [True]
    for name, value in seen[-1][1].items():
        assert torch.equal(value, seen[best - 1][1][name])


@pytest.mark.parametrize("method", [Method.SDFA, Method.TDFA, Method.DRTP, Method.FA])
def test_other_methods_train_too(method):
    assert train(small(method=method, epochs=1))["metrics"]["test_auc"] > 0.4


@pytest.mark.parametrize("given", [{"precision": "bf16"}, {"sparse_embeddings": True}])
def test_options_leave_the_loss_nearly_as_it_is(given):
    usual, other = (train(small(epochs=1, **chosen))["curves"]["train_loss"][0] for chosen in ({}, given))
    assert other == pytest.approx(usual, rel=0.05)
    assert other != usual


@pytest.mark.parametrize("model", ["deepfm", "dcn"])
def test_alignment_is_the_same_with_sparse_embeddings_and_leaves_them_sparse(model):
    found = []
    for sparse in (False, True):
        config = small(model=model, method=Method.DFA, sparse_embeddings=sparse)
        data = config.load()
        training = Training(config.preset, data.field_dims, CPU)
        found.append(module.batch_alignment(training, module.last_batch(training, data.train, seed=0)))
    assert found[1] == found[0]
    assert len(found[0]) > 2
    training.step(next(module.batches(data.train, 256, 0, 1, CPU, training.group)))
    assert training.model.embedding.weight.grad.is_sparse
    assert training.model.embedding.touched == []


@pytest.mark.parametrize(("asked", "given", "message"), [
    ({"ACCELERATE_MIXED_PRECISION": "bf16"}, {}, "mixed_precision bf16, and this run .*fp32.*Add --precision"),
    ({"ACCELERATE_MIXED_PRECISION": "fp16"}, {"precision": "bf16"}, "mixed_precision fp16, .*--mixed_precision no"),
    ({"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR"}, {}, "dynamo_backend inductor, .*Add --compile"),
    ({"ACCELERATE_USE_FSDP": "true"}, {}, "--use_fsdp"),
    ({"ACCELERATE_USE_DEEPSPEED": "true"}, {}, "--use_deepspeed"),
])  # fmt: skip
def test_a_launcher_that_asks_for_something_else_is_told_so(asked, given, message, tmp_path, monkeypatch):
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        main(small(out=tmp_path / "run", **given))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("precision", "asked"), [("fp32", "no"), ("bf16", "no"), ("bf16", "bf16"), ("fp32", "NO")])
def test_a_launcher_that_asks_for_the_same_or_for_nothing_is_followed(precision, asked, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "NO")
    check_launch("recsys", precision, compiled=False)


def test_published_settings_on_few_rows_are_not_silent(two_logs, tmp_path, capsys):
    main(criteo(two_logs[0], tmp_path / "a"))  # with a learning rate of its own
    assert "few for the published settings" not in capsys.readouterr().err
    main(criteo(two_logs[0], tmp_path / "b", lr=5e-5, epochs=1))
    said = capsys.readouterr().err
    assert "320 rows to train on are few for the published settings (learning rate 5e-05)" in said
    assert "--preset deepfm_dfa_own" in said
    assert "deepfm_dfa_own" in PRESETS


def test_a_batch_has_a_row_for_every_process():
    check_share(batch=4, processes=4)
    with pytest.raises(UserError, match=r"--batch 3: 4 processes share its rows\. Give at least 4"):
        check_share(batch=3, processes=4)


def test_embedding_feedback_is_the_presets_unless_asked_for():
    assert options(model="afn", dataset="criteo").preset.embedding_feedback == "off"
    assert options(model="afn", dataset="criteo", embedding_feedback="on").preset.embedding_feedback == "on"
    assert options(model="dcn", dataset="criteo").preset.embedding_feedback == "on"


@pytest.mark.parametrize(("setting", "ranks"), [("off", 0), ("on", 1), ("through", 2)])
def test_the_error_of_a_click_moves_embeddings_along_one_direction_unless_hidden_layers_pass_theirs_on(
    log, setting, ranks
):
    config = small(model="afn", method=Method.DFA, embedding_feedback=setting)
    training = Training(config.preset, log.field_dims, CPU)
    rows = slice(0, 256)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(
        training.model(log.train.fields[rows])[:, 0], log.train.labels[rows].float()
    )
    loss.backward()
    gradient = training.model.embedding.weight.grad
    found = 0 if gradient is None else int(torch.linalg.matrix_rank(gradient[: log.field_dims[0]], rtol=1e-4))
    assert min(found, 2) == ranks


def test_published_settings_are_those_of_the_release():
    found = {
        name: (p.lr, p.dropout, p.max_epochs, p.patience, p.batch, p.embed, p.mlp, p.linear_std)
        for name, p in PUBLISHED.items()
    }
    three, two = (400, 400, 400), (1024, 1024)
    assert found == {
        "fm_bp": (1e-4, 0.0, 15, 3, 2048, 16, three, 1.0),
        "deepfm_bp": (3e-4, 0.5, 30, 5, 2048, 10, three, 1.0),
        "deepfm_dfa": (5e-5, 0.5, 30, 5, 2048, 10, three, 1.0),
        "deepfm_shallow": (1e-4, 0.1, 30, 5, 2048, 10, three, 1.0),
        "dcn_bp": (2e-4, 0.0, 15, 3, 512, 16, two, 1.0),
        "dcn_dfa": (5e-5, 0.0, 15, 3, 512, 16, two, 1.0),
        "dcn_shallow": (1e-3, 0.0, 30, 5, 2048, 16, two, 1.0),
        "autoint_bp": (1e-4, 0.0, 15, 3, 2048, 16, three, 1.0),
        "autoint_dfa": (5e-5, 0.0, 15, 3, 2048, 16, three, 1.0),
        "autoint_shallow": (4e-4, 0.5, 30, 5, 2048, 16, three, 1.0),
        "afn_bp": (4e-4, 0.3, 15, 3, 2048, 10, three, 1.0),
        "afn_dfa": (3e-4, 0.0, 15, 3, 2048, 10, three, 1.0),
        "afn_shallow": (4e-4, 0.0, 30, 5, 2048, 10, three, 1.0),
    }
    assert {p.clip_norm for name, p in PUBLISHED.items() if name.startswith("dcn")} == {100.0}


def test_a_data_set_without_presets_of_its_own_has_the_published_ones():
    def find(method, dataset):
        return find_preset(model="dcn", method=method, dataset=dataset)

    assert find(Method.BP, "criteo_x1") == PUBLISHED["dcn_bp"]
    assert find(Method.BP, "adult") == PRESETS["dcn_bp_adult"]
    assert find(Method.SDFA, "ml-100k") == replace(PRESETS["dcn_dfa_ml-100k"], method=Method.SDFA)


def test_the_arguments_that_find_a_preset_are_named_because_their_types_would_not_tell_them_apart():
    kinds = {argument.kind for argument in inspect.signature(find_preset).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "critteo"], "--dataset critteo: no such data set"),
        (["--model", "mlp"], "--model mlp: no such model"),
        (["--model", "fm", "--method", "dfa"], "--method dfa: FM has no hidden layer"),
        (["--preset", "afn_xyz"], "--preset afn_xyz: no such preset"),
        (["--preset", "afn_bp", "--method", "dfa"], "--preset afn_bp trains by bp and --method says dfa"),
        (["--preset", "afn_bp", "--model", "dcn"], "--preset afn_bp is about afn and --model says dcn"),
        (["--epochs", "0"], "max_epochs is 0; it must be at least 1"),
        (["--batch", "1"], "batch is 1; batch normalisation needs at least 2 rows"),
        (["--lr", "-1"], "lr is -1.0; it must lie between 0 and 10"),
        (["--dropout", "1"], "dropout is 1.0; it must lie in [0, 1)"),
        (["--criteo-file", "mine.txt"], "--criteo-file mine.txt: this run takes --dataset synthetic"),
        (["--model", "fm", "--method", "bp", "--dropout", "0.5"], "--dropout has no effect with --model fm"),
        (["--preset", "fm_bp", "--alignment"], "--alignment-every: FM has no hidden layer"),
        (["--preset", "fm_bp", "--embedding-feedback", "on"], "--embedding-feedback has no effect with --model fm"),
        (["--model", "dcn", "--neurons", "9"], "--neurons has no effect with --model dcn, only with afn"),
        (["--model", "autoint", "--heads", "5"], "attention is 32 wide; 5 heads must divide it"),
        (["--mlp", "0"], "mlp is (0,); it must be one or more widths of at least 1"),
        (["--alignment-every", "0"], "--alignment-every 0: give at least 1"),
        (["--method", "bp", "--embedding-feedback", "on"], "--embedding-feedback on: bp sends no signal"),
        (["--method", "fa", "--embedding-feedback", "through"], "--embedding-feedback through: fa sends no signal"),
        (["--method", "shallow", "--embedding-feedback", "off"], "--embedding-feedback off: shallow sends no signal"),
        (["--method", "bp", "--alignment"], "--alignment-every: backpropagation would be compared with itself"),
        (["--dataset", "adult", "--min-count", "3"], "--min-count 3: on adult every category has an id"),
        (["--dataset", "ml-1m", "--binning", "log2"], "--binning log2: ml-1m has no counts"),
        (["--dataset", "criteo_x1", "--binning", "ln2"], "--binning ln2: criteo_x1 has no counts"),
        (["--dataset", "own"], "--dataset own: this is about a table of your own. Add --table FILE --label COLUMN"),
        (["--label", "x"], "--label: this is about a table of your own"),
        (["--ignore", "x"], "--ignore: this is about a table of your own"),
        (["--table", "t.csv"], "--table t.csv: which of its columns holds the clicks? Add --label"),
        (["--table", "t.csv", "--label", "x", "--dataset", "adult"], "--table t.csv: this run takes --dataset adult"),
        (["--table", "t.csv", "--label", "x", "--criteo-file", "y"], "--criteo-file y: this run takes --table t.csv"),
        (["--table", "t.csv", "--label", "x", "--binning", "log2"], "--binning log2: own has no counts"),
        (["--table", "t.csv", "--label", "x", "--ignore", "x"], "--ignore x: --label names it as well"),
        (
            ["--table", "t.csv", "--label", "x", "--numbers", "a", "--categories", "a"],
            "--numbers a: --categories names",
        ),
        (["--table", "t.csv", "--label", "x"], "cannot read t.csv: No such file"),
        (["--dataset", "adult", "--data-dir", "/no/such/folder"], "/no/such/folder: no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(arguments, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as leaving:
        command("recsys", Config, load, train, argv=arguments)
    complaint = capsys.readouterr().err
    assert leaving.value.code == 2
    assert message in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_two_processes_started_by_accelerate_train_as_one_does(tmp_path):
    with float64():
        first = train(small(batch=255, model="dcn", method=Method.DFA))  # shares of 128 and 127 rows, of 53 and 52
    launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2"]
    words = ["--rows", "3000", "--epochs", "2", "--batch", "255", "--lr", "0.003", "--device", "cpu"]
    words += ["--model", "dcn", "--method", "dfa", "--out", str(tmp_path / "two")]
    command = [*launcher, "-m", "tests.float64", "recsys.train", *words]
    two = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    second = json.loads((tmp_path / "two" / "result.json").read_text())
    printed = [json.loads(line) for line in two.stdout.splitlines() if line.startswith("{")]
    assert [line["metrics"] for line in printed] == [second["metrics"]]  # by one of them
    assert second["curves"].keys() == first["curves"].keys()
    for name, curve in first["curves"].items():
        assert second["curves"][name] == pytest.approx(curve, rel=1e-9)
    assert second["metrics"] == pytest.approx(first["metrics"], rel=1e-9)
    state = torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)
    assert len(state["generators_of_others"]) == 1


@pytest.mark.data
def test_adult_and_movielens_come_out_as_known(data_dir):
    for dataset, bp in (("adult", 0.9), ("ml-100k", 0.75)):
        found = train(options(model="deepfm", method=Method.BP, dataset=dataset, data_dir=data_dir, epochs=1))
        assert found["metrics"]["test_auc"] > bp
