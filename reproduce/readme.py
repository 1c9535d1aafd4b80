"""Result tables in Markdown files are generated, never typed: blocks between two comments are rewritten from results/.

<!-- results:table3 -->
anything here is replaced by the table, with its notes
<!-- /results -->

<!-- results:table3 | Cora | GraphConv -->
some of its columns and rows alone, and a link to the whole; names may hold * for anything
<!-- /results -->
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from harness.errors import UserError
from harness.files import write_whole

BLOCK = re.compile(
    r"(<!-- results:(?P<name>[\w./-]+)(?P<parts>(?: \| [^|\n]+?)*) -->\n).*?(<!-- /results -->)", re.DOTALL
)
OPENING = re.compile(r"<!-- results:")


Source = Callable[[str, list[str], Path], str]
"""The name of a table, the rows and columns of it that are wanted (none: all), the file that asks; to Markdown."""


def rewritten(path: Path, table: Source) -> str:
    """The text of the file with every block filled anew.

    Args:
        path: The file.
        table: What a block holds; raises `UserError` for a name that does not exist.

    Raises:
        UserError: a block is not closed.
    """
    text = path.read_text(encoding="utf-8")
    if len(OPENING.findall(text)) != len(BLOCK.findall(text)):
        raise UserError(f"{path}: a block '<!-- results:NAME -->' is not closed. End it with '<!-- /results -->'.")

    def filled(match: re.Match[str]) -> str:
        parts = [part.strip() for part in match["parts"].split(" | ")[1:]]
        return f"{match[1]}\n{table(match['name'], parts, path).strip()}\n\n{match[4]}"

    return BLOCK.sub(filled, text)


def outdated(paths: Iterable[Path], table: Source) -> dict[Path, str]:
    """The files whose blocks differ from what the results say, with the text they should have."""
    texts = {path: rewritten(path, table) for path in paths}
    return {path: text for path, text in texts.items() if text != path.read_text(encoding="utf-8")}


def update(paths: Iterable[Path], table: Source) -> list[Path]:
    """Rewrite the blocks of the files; returns those that changed."""
    changed = outdated(paths, table)
    for path, text in changed.items():
        write_whole(path, text, "Make it writable")
    return list(changed)
