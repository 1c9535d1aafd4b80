"""The report is one page that loads nothing, shows every table, and stands where a part of it fails."""

import base64
import os
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from harness.methods import label
from reproduce.report.page import dots
from reproduce.scoreboard.tables import ROWS
from tests.reproduce.project import Project
from tinydfa.rules.base import OTHER


class Page(HTMLParser):
    """Collects what a browser would load, and whether every element that is opened is closed."""

    EMPTY = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_every_row_of_the_scoreboard_has_its_dot():
    found = dots([])
    assert {label(row) for row in ROWS} == found.keys()
    assert found["LES (similarity=0.99)"] == found["LES"] != OTHER


def test_the_report_is_one_page_that_loads_nothing(finished):
    project, _ = finished
    text = (project.folder / "results" / "report.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "script" not in page.tags
    assert "url(" not in text
    assert "@import" not in text
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in page.links)
    pictures = [base64.b64decode(link.split(",", 1)[1]) for link in page.links if link.startswith("data:")]
    assert len(pictures) == 2  # the table at a glance, and the task's own
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


BROWSER = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium: $CHROMIUM, or a browser on the PATH")
def test_a_browser_without_network_shows_the_whole_report(finished, tmp_path):
    project, _ = finished
    page = (project.folder / "results" / "report.html").as_uri()
    alone = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    picture = tmp_path / "report.png"

    def browse(*arguments: str) -> str:
        command = [str(BROWSER), *alone, f"--user-data-dir={tmp_path}", *arguments, page]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    text = " ".join(Page(browse("--dump-dom")).text.split())
    assert "Title of good" in text
    assert "83.0 ± 3.6" in text
    browse(f"--screenshot={picture}", "--window-size=1280,3000")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 100_000  # 225 kB; of a blank page 17 kB, of a heading alone 23 kB


def test_the_report_shows_tables_notes_and_the_tasks_own_sections(finished):
    project, _ = finished
    page = Page((project.folder / "results" / "report.html").read_text())
    text = " ".join(page.text.split())
    for part in (
        "Title of good",
        "83.0 ± 3.6",
        "81.5",
        "Published numbers: nowhere.",
        "Own <section>",
        "A dot & more",
    ):
        assert part in text


def test_a_task_whose_pictures_fail_still_gets_its_tables(project: Project):
    (project.folder / "fake" / "report.py").write_text(
        "def sections(results, context):\n    raise KeyError('curves')\n"
    )
    done = project("good", "--seeds", "1")
    assert done.returncode == 1
    for whose in ("full", "your"):
        assert f"FAILED the pictures of fake in the report ({whose} runs): KeyError: 'curves'" in done.stderr
    assert "<td>80.0</td>" in (project.folder / "runs" / "reproduce" / "report.html").read_text()
