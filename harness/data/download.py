"""Downloads that can be interrupted: mirrors in order, continued where they stopped, checked before they get a name.

pooch does the checking and the moving into place; it cannot continue a partial file, so it is given a downloader that
asks the server for the rest (HTTP Range). Bytes received so far wait in a folder of their own, under the name of the
sha256 they should have: they are of use whichever mirror sends the rest. A file of unknown sha256 is never continued.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import writing
from harness.files import alone

AGENT = "Mozilla/5.0 (compatible; tinydfa)"  # some mirrors refuse clients without a browser's name
TIMEOUT = (10, 60)  # seconds to connect, and between two packets
ATTEMPTS = 5  # per mirror, as long as each brings new bytes


def download(urls: Sequence[str], target: Path, digest: str | None, size: int | None, partial: Path) -> list[str]:
    """Bring a file to `target` from the first mirror that has it.

    Args:
        urls: Mirrors, tried in this order.
        target: Where the file goes; its folder is made.
        digest: Its sha256; None if not known.
        size: Its bytes; None if not known.
        partial: Folder for unfinished downloads.

    Returns:
        Why each mirror failed; empty if `target` is there now.

    Raises:
        UserError: the disk cannot be written to.
    """
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    failures: list[str] = []
    with writing(target, "Free some space, or set TINYDFA_CACHE to another folder"), _alone(partial, target):
        if target.is_file():  # another process was faster
            return []
        for url in urls:
            fetcher = _Continuing(partial / f"{digest or target.name}.part", digest is not None, size)
            try:
                fetcher.patiently(url, target, digest)
                return []
            except requests.RequestException as error:
                failures.append(f"{url}: {_short(error)}")
            except ValueError:  # pooch: the sha256 differs
                failures.append(f"{url}: what it sent has another sha256 than {digest}, and was thrown away")
    return failures or ["no address to download it from"]


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Continuing:
    """A downloader for pooch that keeps what it received when the connection breaks."""

    def __init__(self, part: Path, may_continue: bool, size: int | None) -> None:
        self.part, self.may_continue, self.size = part, may_continue, size

    def patiently(self, url: str, target: Path, digest: str | None) -> None:
        """Download `url` to `target`, asking again as long as every attempt receives data."""
        import pooch
        import requests

        target.parent.mkdir(parents=True, exist_ok=True)
        known = f"sha256:{digest}" if digest else None
        try:
            for attempt in range(ATTEMPTS):
                before = self._have()
                try:
                    pooch.retrieve(url, known, fname=target.name, path=target.parent, downloader=self)
                    return
                except requests.RequestException:
                    if attempt == ATTEMPTS - 1 or self._have() <= before:
                        raise
        finally:
            if not self.may_continue or not self._have():
                self.part.unlink(missing_ok=True)

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        import requests

        have = self._have() if self.may_continue else 0
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416:  # nothing is left to download: the file is complete or corrupt
                os.replace(self.part, output_file)
                return
            response.raise_for_status()
            with open(self.part, "ab" if response.status_code == 206 else "wb") as file:
                for chunk in response.iter_content(1 << 16):
                    file.write(chunk)
        self._refuse_short(url)
        os.replace(self.part, output_file)

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _refuse_short(self, url: str) -> None:
        import requests

        if self.size is not None and self._have() != self.size:
            found = self._have()
            if found > self.size:
                self.part.unlink()
            raise requests.RequestException(f"sent {found} bytes where the published file has {self.size}")


@contextlib.contextmanager
def _alone(folder: Path, target: Path) -> Iterator[None]:
    """Let one process at a time download `target`; the others wait, and then find it there."""
    name = hashlib.sha256(str(target.absolute()).encode()).hexdigest()[:16]
    with alone(folder / name):  # without locks the worst case is a download done twice
        yield


def _short(error: Exception) -> str:
    """A network error without the library's object dumps."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"the server answered {response.status_code}"
    text = str(error)
    if system := re.search(r"\[Errno -?\d+\] ([^'\")]+)", text):
        return system[1]
    return text.split("(Caused by")[-1].strip("() ").rsplit(": ", 1)[-1].strip("\"')") or type(error).__name__
