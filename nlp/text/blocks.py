"""Long texts, read a block at a time: plain and compressed files, members of a zip archive, and strings.

A text may be larger than memory. It is cut into blocks before white space that follows another character: no word and
no piece of byte-pair encoding is cut in two, so that the blocks have the tokens of the whole text.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from harness.data.download import sha256
from harness.errors import UserError

BLOCK = 1 << 18  # bytes that are read at a time, and characters of a block
JOINT = "\n\n"  # between two documents
DAMAGED = (EOFError, lzma.LZMAError, zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, KeyError)
Opener = Callable[[Path], Any]  # to a file of bytes
COMPRESSED: dict[str, tuple[bytes, Opener]] = {  # by suffix: how the content begins, and what decompresses it
    ".gz": (b"\x1f\x8b", gzip.open),
    ".xz": (b"\xfd7zXZ\0", lzma.open),
    ".bz2": (b"BZh", bz2.open),
}
MARKS = {  # how a file begins that is text in another encoding than UTF-8; the longer first
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Part:
    """A document, or a whole corpus in one file: UTF-8 text that is opened when it is read."""

    name: str  # for messages
    digest: str  # equal for equal content
    open: Callable[[], IO[bytes]] = field(compare=False)


def file_part(path: Path) -> Part:
    """A text file; a compressed one is decompressed as it is read, whatever its name.

    Raises:
        UserError: it cannot be read.
    """
    try:
        digest = sha256(path)
        with open(path, "rb") as file:
            begin = file.read(8)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}. Make it readable, or remove it.") from error
    return Part(str(path), digest, lambda: _opener(path, begin)(path))


def _opener(path: Path, begin: bytes) -> Opener:
    """What opens a file: by its suffix, and where that says nothing, by how it begins."""
    if kind := COMPRESSED.get(path.suffix.lower()):
        return kind[1]
    return next(
        (opener for mark, opener in COMPRESSED.values() if begin.startswith(mark)), lambda path: open(path, "rb")
    )


def zip_part(path: Path, member: str, digest: str) -> Part:
    """A member of a zip archive that has the sha256 `digest`."""
    return Part(f"{member} in {path}", f"{digest} {member}", lambda: zipfile.ZipFile(path).open(member))


def string_part(name: str, text: str) -> Part:
    """A string."""
    content = text.encode()
    return Part(name, hashlib.sha256(content).hexdigest(), lambda: io.BytesIO(content))


def blocks(parts: Sequence[Part], size: int = BLOCK) -> Iterator[str]:
    """The text of `parts`, an empty line between two of them, in blocks of about `size` characters.

    Every block but the first begins with white space, and every block but the last ends with another character. A text
    without white space is one block. Line ends are those of Unix, as with Python's `open`.

    Raises:
        UserError: a part is damaged, or is not UTF-8: names the file and the byte.
    """
    waiting: list[str] = []  # not cut yet
    held = 0
    for piece in _pieces(parts, size):
        waiting.append(piece)
        held += len(piece)
        if held >= size and (border := _last_border(piece)):
            yield "".join((*waiting[:-1], piece[:border]))
            waiting = [piece[border:]]
            held = len(waiting[0])
    if rest := "".join(waiting):
        yield rest


def count_words(block: str, line_ends: bool = False) -> int:
    """Words between white space in a block of `blocks`; with `line_ends`, one more for each line end.

    Example:
        >>> count_words(" = Title = \\n", line_ends=True)
        4
    """
    return len(block.split()) + (block.count("\n") if line_ends else 0)


def _last_border(text: str) -> int | None:
    """The last place in `text` where a space or line end follows a character that is not white space."""
    for place in range(len(text) - 1, 0, -1):
        if text[place] in " \n" and not text[place - 1].isspace():
            return place
    return None


def _pieces(parts: Sequence[Part], size: int) -> Iterator[str]:
    """The characters of all parts, as they come, with `JOINT` between parts."""
    for number, part in enumerate(parts):
        if number:
            yield JOINT
        try:
            yield from _decoded(part, size)
        except DAMAGED as error:
            raise UserError(f"{part.name} is damaged ({error}). Replace the file.") from error
        except OSError as error:
            raise UserError(f"cannot read {part.name}: {error.strerror or error}. Replace the file.") from error


def _decoded(part: Part, size: int) -> Iterator[str]:
    """The characters of one part, without a byte order mark."""
    utf8 = codecs.getincrementaldecoder("utf-8")()
    text = io.IncrementalNewlineDecoder(utf8, translate=True)
    offset, first, final = 0, True, False
    with part.open() as file:
        while not final:
            content = file.read(size)
            final = not content
            _refuse_other_encodings(part, content, offset)
            pending = len(utf8.getstate()[0])  # the first bytes of a character that continues in the next block
            try:
                piece = text.decode(content, final)
            except UnicodeDecodeError as error:
                raise UserError(_not_utf8(part, offset - pending + error.start, error)) from error
            offset += len(content)
            if first and piece:
                piece, first = piece.removeprefix("\N{BYTE ORDER MARK}"), False
            if piece:
                yield piece


def _refuse_other_encodings(part: Part, content: bytes, offset: int) -> None:
    """Raise for text in 16 or 32 bits a character, of which ASCII would pass as UTF-8 with bytes of zero."""
    name = next((name for mark, name in MARKS.items() if offset == 0 and content.startswith(mark)), None)
    if name is not None:
        advice = f"Convert it by iconv -f {name} -t utf-8, or remove it"
        raise UserError(f"{part.name} is {name.upper()} text, and not UTF-8. {advice}.")
    if b"\0" in content:
        likely = "utf-16le" if (offset + content.index(0)) % 2 else "utf-16be"  # the position of ASCII's zero byte
        advice = f"If it is text, it is UTF-16: convert it by iconv -f {likely} -t utf-8; else remove it"
        raise UserError(f"{part.name} has bytes of zero, so it is no UTF-8 text. {advice}.")


def _not_utf8(part: Part, offset: int, error: UnicodeDecodeError) -> str:
    """Where a file stops being UTF-8."""
    found = error.object[error.start]
    return (
        f"{part.name} is not UTF-8 text: byte {offset} (counted from 0, decompressed) is 0x{found:02x}. If it is text, "
        "convert it from its own encoding, such as iconv -f windows-1252 -t utf-8 for Western Europe; else remove it."
    )
