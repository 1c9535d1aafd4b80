"""Exit status and messages of a command: 0 done, 2 the user's mistake in one line, 1 anything else."""

import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from harness import cli
from harness.errors import UserError
from tinydfa import DFAError, Method

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass
class Config:
    """Train something."""

    method: Method = Method.DFA
    """How hidden layers are trained."""
    epochs: int = 3
    lr: float = 0.1
    data_dir: Path | None = None
    resume: bool = False


def leave(main, *arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.run(Config, main, arguments)
    return exit_.value.code


def fail(error: BaseException):
    def main(config: Config) -> None:
        raise error

    return main


def test_done_is_status_0_and_the_arguments_arrive():
    seen = []
    assert leave(seen.append, "--method", "bp", "--epochs", "5", "--resume", "--data-dir", "x") == 0
    assert seen == [Config(method=Method.BP, epochs=5, data_dir=Path("x"), resume=True)]


@pytest.mark.parametrize("kind", [UserError, DFAError])
def test_the_users_mistake_is_status_2_and_one_line(kind: type[Exception], capsys: pytest.CaptureFixture):
    assert leave(fail(kind("culprit 'x'.\n  Way out: y."))) == 2
    assert capsys.readouterr().err == "error: culprit 'x'. Way out: y.\n"


def test_anything_else_is_status_1_with_a_traceback(capsys: pytest.CaptureFixture):
    assert leave(fail(KeyError("gone"))) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interruption_is_status_1_without_a_traceback(capsys: pytest.CaptureFixture):
    assert leave(fail(KeyboardInterrupt())) == 1
    assert capsys.readouterr().err == "interrupted\n"


def one_line(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_typo_in_the_method_lists_the_methods(capsys: pytest.CaptureFixture):
    assert leave(print, "--method", "dfaa") == 2
    message = one_line(capsys)
    assert "'dfaa'" in message
    assert all(f"'{method.value}'" in message for method in Method)


def test_an_unknown_option_is_named_with_a_near_one(capsys: pytest.CaptureFixture):
    assert leave(print, "--epoch", "3") == 2
    message = one_line(capsys)
    assert "--epoch, 3" in message
    assert "--epochs" in message


def test_a_number_that_is_none_is_named(capsys: pytest.CaptureFixture):
    assert leave(print, "--epochs", "many") == 2
    message = one_line(capsys)
    assert "--epochs" in message
    assert "'many'" in message


@dataclass
class Checked:
    """A config that checks itself."""

    epochs: int = 3

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UserError(f"--epochs {self.epochs}: give at least 1.")


def test_a_config_that_refuses_its_values_is_status_2(capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as exit_:
        cli.run(Checked, print, ["--epochs", "0"])
    assert exit_.value.code == 2
    assert one_line(capsys) == "error: --epochs 0: give at least 1."


@pytest.mark.parametrize(
    ("option", "says"), [("--epochs", "--epochs 'ten': give a whole number."), ("--lr", "--lr 'ten': give a number.")]
)
def test_a_word_in_place_of_a_number_is_told_without_pythons_words(option: str, says: str, capsys):
    assert leave(print, option, "ten") == 2
    assert one_line(capsys) == f"error: {says} (--help lists the options)"


def test_help_is_status_0(capsys: pytest.CaptureFixture):
    assert leave(print, "--help") == 0
    assert "How hidden layers are trained." in capsys.readouterr().out


@pytest.mark.parametrize("module", ["vision.train", "reproduce.__main__"])
def test_help_names_the_command_as_it_was_typed(module: str, monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", ModuleSpec(module, None))
    assert leave(print, "--help") == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module.removesuffix('.__main__')} [-h]")


def test_help_of_a_script_names_its_file(monkeypatch, capsys: pytest.CaptureFixture):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    assert leave(print, "--help") == 0
    assert capsys.readouterr().out.startswith("usage: mine.py [-h]")


def test_a_real_process_leaves_with_status_2_and_no_traceback(tmp_path: Path):
    (tmp_path / "file").write_text("")
    command = [sys.executable, str(HERE / "tiny_training.py"), "--out", str(tmp_path / "file" / "run")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith("error: cannot write")
    assert len(process.stderr.splitlines()) == 1


def test_a_leading_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    seen = []
    assert leave(seen.append, "--data-dir=~/data") == 0
    assert seen[0].data_dir == tmp_path / "data"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data-dir", ""], "--data-dir is empty. Give a value"),
        (["--data-dir="], "--data-dir is empty. Give a value"),
        (["--method", "bp", ""], "--method is empty. Give a value"),
        ([""], "an argument is empty. Give a value"),
        (["--data-dir", "~nosuchuser/x"], "~nosuchuser/x: no user of that name is known"),
        (["--data-dir", "x" * 300], "x: File name too long. Use another path."),
        (["--data-dir", os.fsdecode(b"a\xff")], r"'a\udcff' is not valid UTF-8"),
        ([os.fsdecode(b"--data-dir=\xff")], r"'--data-dir=\udcff' is not valid UTF-8"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_before_anything_runs(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture
):
    assert leave(fail(AssertionError("it ran")), *arguments) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert message in complaint
    assert len(complaint.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("-m", "vision.train", "--help"), ("-m", "reproduce", "--list")])
def test_a_reader_that_stops_early_sees_no_traceback(arguments: tuple[str, ...]):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *arguments], cwd=ROOT, env=environment, **pipe) as process:
        process.stdout.close()  # sooner than head does
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_pipe_that_breaks_elsewhere_is_not_hidden(capsys: pytest.CaptureFixture):
    assert leave(fail(BrokenPipeError("to a worker"))) == 1
    assert "BrokenPipeError: to a worker" in capsys.readouterr().err
