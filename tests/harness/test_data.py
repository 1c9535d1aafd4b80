"""Data comes from a root that is only read, else from mirrors; nothing unchecked or half-written gets a name."""

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from harness import data
from harness.data import RemoteFile
from harness.data.cache import make_once
from harness.errors import UserError

CONTENT = bytes(range(256)) * 2000  # 512 kB
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves /good, /other (wrong content), /broken (hangs up halfway, honours Range) and 404 for the rest."""

    requests: list[tuple[str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append((self.path, wanted))
        start = int(wanted.split("=")[1].rstrip("-")) if wanted else 0
        content = {"/good": CONTENT, "/other": CONTENT[::-1], "/broken": CONTENT, "/once": CONTENT}.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        cut = {"/broken": start + 100_000, "/once": len(content) if wanted else 100_000}.get(self.path, len(content))
        self.wfile.write(content[start:cut])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.requests = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DFA_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def wanted(*urls: str, digest: str | None = DIGEST, size: int | None = len(CONTENT)) -> RemoteFile:
    return RemoteFile("set/file.bin", digest, size, urls)


def files_below(folder: Path) -> list[str]:
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"
    )


def test_the_root_is_the_argument_then_the_environment_then_the_cache(
    root: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert data.data_root() == cache / "data"
    monkeypatch.setenv("DFA_DATA", str(root))
    assert data.data_root() == root
    assert data.data_root(tmp_path) == tmp_path


def test_a_data_folder_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"--data-dir .*nowhere: no such folder"):
        data.data_root(tmp_path / "nowhere")
    monkeypatch.setenv("DFA_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"\$DFA_DATA .*nowhere"):
        data.data_root()


def test_a_file_below_the_root_is_used_and_nothing_is_downloaded(root: Path, cache: Path, server: Server):
    (root / "set").mkdir()
    (root / "set" / "file.bin").write_bytes(CONTENT)
    assert data.fetch([wanted(f"{server.url}/good")], root, "a set") == [root / "set" / "file.bin"]
    assert server.requests == []


def test_a_download_goes_to_the_cache_once_and_leaves_the_root_untouched(root: Path, cache: Path, server: Server):
    for _ in range(2):
        [path] = data.fetch([wanted(f"{server.url}/good")], root, "a set")
        assert path == cache / "data" / "set" / "file.bin"
        assert path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert files_below(root) == []
    assert files_below(cache) == ["data/set/file.bin"]


@pytest.mark.parametrize(("content", "fault"), [(CONTENT[:-1], "511999 bytes"), (CONTENT[::-1], "its sha256 is")])
def test_a_damaged_file_below_the_root_is_named_and_not_used(root: Path, content: bytes, fault: str):
    (root / "set").mkdir()
    (root / "set" / "file.bin").write_bytes(content)
    with pytest.raises(UserError, match=rf"set/file\.bin .*{fault}"):
        data.fetch([wanted()], root, "a set")


def test_mirrors_are_tried_in_order_and_wrong_content_is_thrown_away(root: Path, cache: Path, server: Server):
    urls = [f"{server.url}/{name}" for name in ("absent", "other", "good")]
    [path] = data.fetch([wanted(*urls)], root, "a set")
    assert path.read_bytes() == CONTENT
    assert [name for name, _ in server.requests] == ["/absent", "/other", "/good"]
    assert files_below(cache) == ["data/set/file.bin"]


def test_wrong_content_everywhere_is_named_and_nothing_is_left(root: Path, cache: Path, server: Server):
    with pytest.raises(UserError, match=r"/other: what it sent has another sha256 than "):
        data.fetch([wanted(f"{server.url}/other")], root, "a set")
    assert files_below(cache) == []


def test_content_of_another_size_is_refused_where_no_sha256_is_known(root: Path, cache: Path, server: Server):
    with pytest.raises(UserError, match="sent 512000 bytes where the published file has 7"):
        data.fetch([wanted(f"{server.url}/good", digest=None, size=7)], root, "a set")
    assert files_below(cache) == []


def test_a_download_cut_short_is_continued_where_it_stopped(root: Path, server: Server):
    [path] = data.fetch([wanted(f"{server.url}/once")], root, "a set")
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/once", None), ("/once", "bytes=65536-")]  # of 100,000 bytes one whole packet is kept


def test_another_mirror_and_another_day_continue_what_one_began(root: Path, cache: Path, server: Server):
    with pytest.raises(UserError, match="/broken"):
        data.fetch([wanted(f"{server.url}/broken", f"{server.url}/absent")], root, "a set")
    assert files_below(cache) == [f"partial/{DIGEST}.part"]  # no file of the final name
    server.requests.clear()
    [path] = data.fetch([wanted(f"{server.url}/good")], root, "a set")
    assert path.read_bytes() == CONTENT
    assert server.requests == [("/good", f"bytes={5 * 65536}-")]  # five attempts, a packet each
    assert files_below(cache) == ["data/set/file.bin"]


def test_offline_is_one_error_that_says_what_where_and_what_else(root: Path, cache: Path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.bin"
        other = RemoteFile("set/second.bin", None, None, (url,))
        with pytest.raises(UserError) as caught:
            data.fetch([wanted(url), other], root, "the set of the test")
    message = str(caught.value)
    for part in ("the set of the test", "set/file.bin, set/second.bin", str(root), str(cache), url, "refused"):
        assert part in message
    assert "--data-dir" in message
    assert "--dataset synthetic (of reproduce: --scale quick), which needs nothing" in message
    assert "\n" not in message
    assert files_below(cache) == []


def test_a_cache_that_cannot_be_written_is_named(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TINYDFA_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cannot write .*file/cache.*TINYDFA_CACHE"):
        data.fetch([wanted()], root, "a set")


def test_two_processes_at_once_download_once(root: Path, cache: Path, server: Server):
    found: list[Path] = []
    work = [
        threading.Thread(target=lambda: found.extend(data.fetch([wanted(f"{server.url}/good")], root, "s")))
        for _ in "ab"
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert [path.read_bytes() for path in found] == [CONTENT, CONTENT]
    assert len(server.requests) == 1


def test_a_folder_of_the_cache_is_made_once_and_whole_or_not_at_all(tmp_path):
    made = []

    def make(folder):
        (folder / "a").write_text("whole")
        made.append(folder)

    def fail(folder):
        (folder / "a").write_text("half")
        raise UserError("no data. Get it.")

    folder = tmp_path / "new" / "log"
    with pytest.raises(UserError, match="no data"):
        make_once(folder, fail)
    assert [path.name for path in folder.parent.iterdir()] == ["log.lock"]
    (folder.parent / "log.77.partial").mkdir()  # of a killed process
    (folder.parent / "log.77.partial" / "b").touch()
    assert make_once(folder, make) == make_once(folder, fail) == folder
    assert [path.name for path in folder.iterdir()] == ["a"]
    assert sorted(path.name for path in folder.parent.iterdir()) == ["log", "log.lock"]
    assert len(made) == 1
    make_once(folder, make, is_whole=lambda folder: len(made) > 1)  # damaged: made again
    assert len(made) == 2


def test_what_an_interrupted_process_left_is_gone_on_with_where_that_is_asked_for(tmp_path):
    def stop(folder):
        (folder / "first").write_text("done")
        raise KeyboardInterrupt

    def finish(folder):
        assert (folder / "first").read_text() == "done"
        (folder / "second").touch()

    folder = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        make_once(folder, stop, go_on=True)
    assert not folder.exists()
    make_once(folder, finish, go_on=True)
    assert sorted(path.name for path in folder.iterdir()) == ["first", "second"]


def test_a_cache_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot write .*TINYDFA_CACHE"):
        make_once(tmp_path / "file" / "log", print)
