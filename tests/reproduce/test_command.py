"""`reproduce` runs what is missing, keeps what is done whatever happens, and says what it did."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reproduce.project import ROOT, Project


def test_paper_and_ours_are_printed_and_the_report_is_the_last_line(finished):
    project, done = finished
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    [first] = [index for index, line in enumerate(lines) if "easy" in line]
    shown = [re.split(r"\s{2,}", line.strip()) for line in lines[first : first + 2]]
    assert shown == [["easy", "ours", "83.0 ± 3.6", "83.0 ± 3.6"], ["paper", "81.5", "–"]]
    assert lines[-1] == "results/report.html"
    assert (project.folder / lines[-1]).exists()
    markdown = (project.folder / "results" / "fake" / "good.md").read_text()
    assert "| easy | ours | 83.0 ± 3.6 | 83.0 ± 3.6 |  |" in markdown
    assert "|  | paper | 81.5 | – |  |" in markdown


def test_every_run_is_done_once_in_worker_processes(finished):
    project, _ = finished
    runs = project.runs()
    assert len(runs) == 9
    assert len(set(runs)) == 9
    assert 1 <= len(project.processes()) <= 2


def test_a_second_call_runs_nothing_and_more_seeds_run_only_what_is_new(project: Project):
    project("good", "--seeds", "1", "--datasets", "cora", "--jobs", "1")
    assert len(project.runs()) == 2
    again = project("good", "--seeds", "1", "--datasets", "cora")
    assert len(project.runs()) == 2
    assert "Every run is in runs/reproduce already" in again.stderr
    assert "83.0" not in again.stdout
    assert "80.0" in again.stdout
    project("good", "--seeds", "2", "--datasets", "cora", "--jobs", "1")
    assert project.runs()[2:] == ["easy cora bp 1 paper", "easy cora dfa 1 paper"]


@pytest.fixture
def repeated(finished, tmp_path: Path) -> Project:
    """A project that has runs of ours, of three seeds, of which somebody has the table of Cora run anew, with two."""
    shutil.copytree(finished[0].folder, tmp_path / "copy")
    project = Project.at(tmp_path / "copy")
    project.trace.write_text("")
    return project


def test_who_asks_for_a_run_gets_it_beside_ours_and_the_papers(repeated: Project):
    before = (repeated.folder / "results" / "fake" / "good.jsonl").read_bytes()
    done = repeated("good", "--seeds", "2", "--datasets", "cora", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert len(repeated.runs()) == 4
    assert (repeated.folder / "results" / "fake" / "good.jsonl").read_bytes() == before
    lines = [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()]
    first = next(index for index, line in enumerate(lines) if line[:2] == ["easy", "yours"])
    assert lines[first : first + 3] == [
        ["easy", "yours", "81.0 ± 1.4", "81.0 ± 1.4"],
        ["ours", "83.0 ± 3.6", "83.0 ± 3.6"],
        ["paper", "81.5", "–"],
    ]
    assert "(%; yours: mean ± std over 2 seeds; ours: mean ± std over 3 seeds)" in done.stdout
    assert "Yours: 4 runs" in done.stdout
    assert "Ours: 6 runs" in done.stdout
    page = (repeated.folder / "runs" / "reproduce" / "report.html").read_text()
    text = " ".join(re.sub(r"<[^>]*>", " ", page[page.index("<main>") :]).split())
    assert text.startswith("Your runs Title of good")
    assert "easy yours 81.0 ± 1.4 81.0 ± 1.4 ours 83.0 ± 3.6 83.0 ± 3.6 paper 81.5 –" in text
    written = (repeated.folder / "runs" / "reproduce" / "fake" / "good.md").read_text()
    assert "| easy | yours | 81.0 ± 1.4 | 81.0 ± 1.4 |  |" in written
    assert "| other | yours |  |  | – |" in written  # a part was run, and the whole is written


def test_who_asks_for_a_look_gets_it_and_nothing_is_run_or_written(repeated: Project):
    before = sorted(repeated.folder.rglob("*"))
    done = repeated("good", "--show")
    assert done.returncode == 0, done.stderr
    assert "83.0 ± 3.6" in done.stdout
    assert repeated.runs() == []
    assert [path for path in sorted(repeated.folder.rglob("*")) if path.suffix != ".pyc"] == [
        path for path in before if path.suffix != ".pyc"
    ]
    repeated("good", "--seeds", "1", "--datasets", "cora")
    both = repeated("good", "--show", "--datasets", "cora")
    assert "yours" in both.stdout
    assert "ours" in both.stdout


def test_a_table_is_printed_as_soon_as_its_last_run_is_done(project: Project):
    with open(project.folder / "fake" / "tables.py", "a") as file:
        file.write('TABLES += (table("slow", cell("waits", "bp")),)\n')
    with project.start("good", "slow", "--seeds", "1", "--jobs", "1") as process:
        assert process.stdout is not None
        told = any("Published numbers: nowhere." in line for line in process.stdout)
        assert told
        assert process.poll() is None  # the other table's run waits for a minute
        process.kill()


def test_a_log_file_has_a_few_lines_and_one_for_every_run_if_asked(project: Project):
    few = project("good", "--seeds", "3", "--jobs", "1").stderr.splitlines()
    assert few[0] == "9 runs, 1 at a time"
    assert re.fullmatch(r"9 of 9 runs done; \d+ s", few[-1])
    assert "easy BP" not in few
    every = project("good", "--seeds", "3", "--jobs", "1", "--out", "other", "--verbose").stderr.splitlines()
    assert every[1].startswith("[1/9] good: easy bp on cora, seed 0: 80.0 % (")
    assert [line for line in every if line.startswith("[9/9]")]


def test_of_several_tables_those_that_have_the_data_set_run(project: Project):
    done = project("bad", "good", "--seeds", "1", "--datasets", "citeseer")
    assert done.returncode == 0, done.stderr
    assert project.runs() == ["other citeseer bp 0 paper"]
    assert "Title of bad" not in done.stdout


def test_runs_that_fail_or_kill_their_process_cost_no_other_and_leave_status_1(project: Project):
    done = project("bad", "--seeds", "1", "--jobs", "2")
    assert done.returncode == 1
    assert "FAILED 1 x: ValueError: bad luck" in done.stderr
    assert "FAILED 1 x: the process died" in done.stderr
    text = (project.folder / "runs" / "reproduce" / "fake" / "bad.md").read_text()
    shown = {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].strip("| ") for line in text.splitlines()[4:9]}
    expected = {"easy": "80.0 (1)", "fails": "–", "dies": "–", "diverges": "– (1 not finite)", "other": "50.0 (1)"}
    assert shown == expected
    assert done.stdout.splitlines()[-1] == "runs/reproduce/report.html"


def test_runs_that_the_user_can_mend_leave_status_2_and_say_so_once(project: Project):
    done = project("lacking", "--seeds", "1", "--jobs", "2")
    assert done.returncode == 2
    assert "FAILED 2 x: the data of the test is not there. Fetch it. (first: lacking: absent " in done.stderr
    assert "80.0" in done.stdout


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the state of a process from /proc")
def test_workers_leave_when_the_command_is_killed(project: Project):
    with open(project.folder / "fake" / "tables.py", "a") as file:
        file.write('TABLES = (table("slow", cell("waits", "bp")),)\n')
    with project.start("slow", "--seeds", "1") as process:
        wait_for(project.runs)
        process.kill()
    [worker] = project.processes()
    wait_for(lambda: is_gone(int(worker)))


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_gone(process: int) -> bool:
    """Whether it ended; nobody may be there to collect it, so a zombie counts."""
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return True


def test_runs_of_another_length_are_filed_apart_and_count_for_no_other(project: Project):
    for length in (["--epochs", "5"], [], ["--epochs", "5"]):
        project("good", "--datasets", "cora", "--seeds", "1", "--jobs", "1", *length)
    lines = (project.folder / "runs" / "reproduce" / "fake" / "good.jsonl").read_text().splitlines()
    scales = [json.loads(line)["scale"] for line in lines]
    assert sorted(scales) == ["paper", "paper", "paper, 5 epochs", "paper, 5 epochs"]


def test_quick_runs_small_cells_on_embedded_data(project: Project):
    done = project("--all", "--scale", "quick", "--out", "results/quick", "--seeds", "1")
    assert "easy synthetic bp 0 quick" in project.runs()
    assert not any("shallow" in run for run in project.runs())  # of a table that leaves itself out
    assert not any("cora" in run for run in project.runs())
    told = "left out, as they take longer or say the same again: long; to run one: "
    assert done.stdout.splitlines()[-2] == f"{told}python -m reproduce long --scale quick --out results/quick"
    assert done.stdout.splitlines()[-1] == "results/quick/report.html"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["goood"], "no table is called 'goood'. There are: good, bad"),
        ([], "say which tables to run, or --all. There are: good, bad"),
        (["good", "--datasets", "coar"], "--datasets coar: no such data set in good. There are: cora, citeseer."),
        (["good", "--seeds", "0"], "--seeds 0: must be at least 1."),
        (["good", "--show", "--seeds", "3"], "--seeds has no meaning with --show, which runs nothing. Drop one."),
        (["good", "--scale", "tiny"], "invalid choice 'tiny'"),
        (["good", "--scale", "quick", "--datasets", "cora"], "--datasets has no meaning with --scale quick"),
        (["good", "--data-dir", "nowhere"], "--data-dir nowhere: no such folder"),
        (["good", "--device", "gpu"], "--device gpu: no such kind of device"),
        (["good", "--out", "reproduce/tasks.py/x"], "cannot write reproduce/tasks.py/x"),
    ],
)
def test_a_mistake_is_status_2_and_one_line(project: Project, arguments: list[str], message: str):
    done = project(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert project.runs() == []


def test_list_names_the_tables(project: Project):
    done = project("--list")
    assert done.returncode == 0
    assert "good" in done.stdout
    assert "Title of bad" in done.stdout
    assert "python -m reproduce bad" in done.stdout
    assert "nothing yet" in done.stdout


def test_list_says_how_much_the_results_hold(finished):
    project, _ = finished
    text = " ".join(project("--list").stdout.split())
    assert re.search(r"good .* held [1-9]\d* of \d+ numbers in results/fake/good.jsonl", text)
    assert "numbers in runs" not in text


def test_list_says_how_much_you_have_run(repeated: Project):
    repeated("good", "--seeds", "1", "--datasets", "cora")
    assert "yours 2 of 3 numbers in runs/reproduce/fake/good.jsonl" in " ".join(repeated("--list").stdout.split())


def test_readme_blocks_are_checked_and_rewritten(finished):
    project, _ = finished
    path = project.folder / "README.md"
    path.write_text("<!-- results:good -->\n<!-- /results -->\n")
    check = project("--check-readme")
    assert check.returncode == 1
    assert "README.md differs" in check.stderr
    assert project("--readme").returncode == 0
    assert "| easy | ours | 83.0 ± 3.6 | 83.0 ± 3.6 |  |" in path.read_text()
    assert project("--check-readme").returncode == 0


def test_the_readme_of_the_library_is_checked_and_rewritten_too(finished):
    project, _ = finished
    path = project.folder / "tinydfa" / "README.md"
    path.parent.mkdir()
    path.write_text("<!-- results:good -->\n<!-- /results -->\n")
    assert project("--check-readme").returncode == 1
    assert project("--readme").returncode == 0
    assert "| easy | ours | 83.0 ± 3.6 | 83.0 ± 3.6 |  |" in path.read_text()


def test_the_readmes_of_the_project_say_what_its_results_say():
    command = [sys.executable, "-m", "reproduce", "--check-readme"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_table_that_refuses_a_method_is_in_no_other_tables_way(project: Project):
    with open(project.folder / "fake" / "tables.py", "a") as file:
        file.write(STUBBORN)
    assert project("good", "--methods", "drtp", "--seeds", "1", "--datasets", "cora", "--jobs", "1").returncode == 0
    assert project.runs() == ["easy+drtp cora drtp 0 paper"]
    refused = project("stubborn", "--methods", "drtp")
    assert (refused.returncode, refused.stderr) == (2, "error: stubborn: drtp is not for this\n")
    whole = project("--all", "--scale", "quick", "--methods", "drtp", "--seeds", "1", "--jobs", "1")
    assert "left out: stubborn: drtp is not for this" in whole.stderr


STUBBORN = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Stubborn:
    method: str
    def __post_init__(self):
        if self.method == "drtp":
            raise UserError("drtp is not for this")

TABLES = (TABLES[0], table("stubborn", replace(cell("easy", "dfa"), preset=Stubborn("dfa"))))
"""
