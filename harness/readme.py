"""Result tables in README files are generated, never typed: blocks between two comments are rewritten from results/.

<!-- results:table3 -->
anything here is replaced by the Markdown table
<!-- /results -->
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.errors import UserError
from harness.files import write_whole

BLOCK = re.compile(r"(<!-- results:(?P<name>[\w./-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)
OPENING = re.compile(r"<!-- results:")


def rewritten(path: Path, table: Callable[[str], str]) -> str:
    """The text of the file with every block filled anew.

    Args:
        path: The README.
        table: Name of a table to its Markdown; raises `UserError` for a name that does not exist.

    Raises:
        UserError: a block is not closed.
    """
    text = path.read_text(encoding="utf-8")
    if len(OPENING.findall(text)) != len(BLOCK.findall(text)):
        raise UserError(f"{path}: a block '<!-- results:NAME -->' is not closed. End it with '<!-- /results -->'.")
    return BLOCK.sub(lambda match: f"{match[1]}\n{table(match['name'])}\n{match[3]}", text)


def outdated(paths: Iterable[Path], table: Callable[[str], str]) -> dict[Path, str]:
    """The files whose blocks differ from what the results say, with the text they should have."""
    texts = {path: rewritten(path, table) for path in paths}
    return {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}


def update(paths: Iterable[Path], table: Callable[[str], str]) -> list[Path]:
    """Rewrite the blocks of the files; returns those that changed."""
    changed = outdated(paths, table)
    for path, text in changed.items():
        write_whole(path, text, "Make it writable")
    return list(changed)
