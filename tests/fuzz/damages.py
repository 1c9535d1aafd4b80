"""Seeded damage: what happens to files on the way from other people's machines.

A damage takes the content of a file and gives another, or None where the file is gone. `inside` damages what a
container holds and packs it again with the right checksums, so that the checks behind those are tried as well. No
pickle is damaged inside: its reader stops at the checksum.
"""

import bz2
import gzip
import io
import lzma
import random
import re
import zipfile
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes | None]

NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
STRANGE = (b"nan", b"inf", b"-inf", b"1e400", b"-1", b"", b"abc", b"99999999999999999999", b"0", b"1e-320", b'"7"')
SEPARATORS = (b",", b"\t", b";", b" ", b":", b"|")
PACKS: dict[bytes, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {  # by how the content begins
    b"\x1f\x8b": (gzip.decompress, gzip.compress),
    b"\xfd7zXZ": (lzma.decompress, lzma.compress),
    b"BZh": (bz2.decompress, bz2.compress),
}


def none(content: bytes, rng: random.Random) -> bytes:
    """The file as it was."""
    return content


def flip(content: bytes, rng: random.Random) -> bytes:
    """One to eight bits are others."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8) if content else 0):
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncate(content: bytes, rng: random.Random) -> bytes:
    """Cut short."""
    return content[: rng.randrange(len(content) + 1)]


def empty(content: bytes, rng: random.Random) -> bytes:
    """Nothing in it."""
    return b""


def delete(content: bytes, rng: random.Random) -> None:
    """Gone."""


def extend(content: bytes, rng: random.Random) -> bytes:
    """Something after the end."""
    return content + rng.choice([b"\n", b"\0", rng.randbytes(rng.randint(1, 40)), content[:40]])


def insert(content: bytes, rng: random.Random) -> bytes:
    """Random bytes, or bytes of zero, somewhere."""
    place = rng.randrange(len(content) + 1)
    return content[:place] + rng.choice([b"\0" * rng.randint(1, 9), rng.randbytes(rng.randint(1, 9))]) + content[place:]


def drop_lines(content: bytes, rng: random.Random) -> bytes:
    """A few lines are missing."""
    lines = content.splitlines(keepends=True)
    start = rng.randrange(len(lines) + 1)
    return b"".join(lines[:start] + lines[start + rng.randint(1, 3) :])


def duplicate_lines(content: bytes, rng: random.Random) -> bytes:
    """A line stands twice."""
    lines = content.splitlines(keepends=True)
    start = rng.randrange(len(lines) + 1)
    return b"".join(lines[:start] + lines[max(start - 1, 0) :])


def swap_lines(content: bytes, rng: random.Random) -> bytes:
    """Two lines have changed places."""
    lines = content.splitlines(keepends=True)
    if len(lines) > 1:
        first, second = rng.sample(range(len(lines)), 2)
        lines[first], lines[second] = lines[second], lines[first]
    return b"".join(lines)


def numbers(content: bytes, rng: random.Random) -> bytes:
    """Up to three numbers are nan, infinite, huge, negative, words or missing."""
    found = list(NUMBER.finditer(content))
    for match in sorted(rng.sample(found, min(len(found), rng.randint(1, 3))), key=lambda match: -match.start()):
        content = content[: match.start()] + rng.choice(STRANGE) + content[match.end() :]
    return content


def separators(content: bytes, rng: random.Random) -> bytes:
    """Another program's separator."""
    present = [mark for mark in SEPARATORS if mark in content]
    return content.replace(rng.choice(present), rng.choice(SEPARATORS)) if present else content


def line_ends(content: bytes, rng: random.Random) -> bytes:
    """The line ends of Windows, or of old Macs."""
    return content.replace(b"\n", rng.choice([b"\r\n", b"\r"]))


def byte_order_mark(content: bytes, rng: random.Random) -> bytes:
    """The mark that Excel and Notepad write."""
    return b"\xef\xbb\xbf" + content


def other_encoding(content: bytes, rng: random.Random) -> bytes:
    """Text in UTF-16 or Latin-1; bytes that are no text are left."""
    try:
        return content.decode().encode(rng.choice(["utf-16", "utf-16-le", "latin-1"]), errors="replace")
    except UnicodeDecodeError:
        return content


def inside(content: bytes, rng: random.Random) -> bytes | None:
    """Damage of what a compressed file or an archive holds."""
    damage = rng.choice([flip, truncate, empty, extend, insert, numbers, drop_lines, other_encoding])
    for begin, (unpack, pack) in PACKS.items():
        if content.startswith(begin):
            return pack(damage(unpack(content), rng))
    if not content.startswith(b"PK"):
        return damage(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    if chosen := [name for name in members if not name.endswith(".pkl")]:
        name = rng.choice(chosen)
        members[name] = damage(members[name], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return packed.getvalue()


DAMAGES: dict[str, Damage] = {
    damage.__name__: damage
    for damage in (
        none,
        flip,
        truncate,
        empty,
        delete,
        extend,
        insert,
        drop_lines,
        duplicate_lines,
        swap_lines,
        numbers,
        separators,
        line_ends,
        byte_order_mark,
        other_encoding,
        inside,
    )
}
