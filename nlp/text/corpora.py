"""Corpora by name: where their text is, where it is downloaded from, and how it is split.

    synthetic        the documentation that CPython itself carries, split by topic; it differs a little between versions
    docs             text/docs/{train,valid,test}.txt.xz below the data root
    tinyshakespeare  text/tinyshakespeare/input.txt: 90 % for training, and 5 % each for validation and test
    wikitext-2       text/wikitext-2/{train,valid,test}.txt, the publisher's wiki.train.tokens ..., or its archive
    wikitext-103     likewise; both are the versions in words with <unk>, which published perplexities are about

A folder of your own (`--text-dir`) has the three files, or documents (.txt, .md, .rst, at any depth) that are split by
a hash of their relative paths, unless they lie in folders called train, valid and test. The three may have other usual
names: val, dev or validation, such as wiki.train.raw and ptb.valid.txt. Any file may be
compressed (.gz, .xz, .bz2), and be spelled in upper case.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.data import RemoteFile, cache_dir, data_root, fetch
from harness.errors import UserError
from harness.files import name_of, refuse_unplain, walk
from nlp.text.blocks import COMPRESSED, Part, file_part, string_part, zip_part

FILES = {"train": "train", "val": "valid", "test": "test"}  # split, and its file
DOCUMENTS = (".txt", ".md", ".rst")
DOCUMENT = re.compile(r"\.(txt|md|rst)(\.(gz|xz|bz2))?$", re.IGNORECASE)
# By split, the files that may hold it; a plain one before a compressed one. Raw WikiText is another text.
SPELLINGS = {"train": "train|training", "val": "valid|val|validation|dev", "test": "test"}
PUBLISHED_FILE = r"({names})\.txt(\.(gz|xz|bz2))?|wiki\.({names})\.tokens(\.(gz|xz|bz2))?"
OWN_FILE = r"((wiki|ptb)\.)?({names})\.(txt|tokens|raw)(\.(gz|xz|bz2))?"
SHOWN = 8  # names of files in a message

SHAKESPEARE = RemoteFile(
    path="text/tinyshakespeare/input.txt",
    sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    size=1_115_394,
    urls=(
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "https://raw.githubusercontent.com/pytorch/examples/77f55b912142e11fcfdf5b530231fb9c52f181e8/"
        "distributed/minGPT-ddp/mingpt/data/input.txt",
    ),
)
WIKITEXT = {  # sha256 and bytes of the publisher's archives
    "wikitext-2": ("92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c", None),
    "wikitext-103": ("242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590", 190_229_076),
}
WIKITEXT_MIRRORS = (
    "https://wikitext.smerity.com/{name}-v1.zip",
    "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/{name}/{name}-v1.zip",
    "https://s3.amazonaws.com/research.metamind.io/wikitext/{name}-v1.zip",  # the original address
)


@dataclass(frozen=True)
class Texts:
    """The texts of a corpus."""

    name: str
    splits: dict[str, tuple[Part, ...]]  # of "train", "val" and "test"
    line_ends: bool = False  # whether its publishers count every line end as a word


def find_texts(dataset: str, data_dir: Path | None = None, text_dir: Path | None = None) -> Texts:
    """Find or download the texts of a corpus; none of them is decoded yet.

    Args:
        dataset: A name of `DATASETS`; not looked at if there is a `text_dir`.
        data_dir: The data root, only read; None: `$DFA_DATA`, else the user's cache folder.
        text_dir: A folder of your own texts in place of a named corpus.

    Raises:
        UserError: an unknown name, a split that is missing, or texts that are neither found nor downloadable.
    """
    if text_dir is not None:
        return own_texts(text_dir)
    if dataset not in READERS:
        known = ", ".join(DATASETS)
        raise UserError(f"--dataset {dataset}: no such corpus. There are {known}; --text-dir takes a folder of texts.")
    splits = READERS[dataset](dataset, data_dir)
    return Texts(dataset, splits, line_ends=dataset in WIKITEXT)


def own_texts(folder: Path) -> Texts:
    """The texts of a folder: {train,valid,test}.txt, plain or .xz, or documents at any depth.

    Raises:
        UserError: there is no such folder, or nothing for a split.
    """
    folder = folder.expanduser()
    if not folder.is_dir():
        raise UserError(f"--text-dir {folder}: no such folder. Give one with train.txt, valid.txt and test.txt.")
    name = name_of(folder, "texts")
    if files := _split_files(folder, "Add what is missing, or move the others into a folder of documents", OWN_FILE):
        return Texts(name, files)
    if files := _split_folders(folder):
        return Texts(name, files)
    names = sorted(_documents(folder))
    splits = {split: tuple(file_part(folder / name) for name in found) for split, found in _dealt(names, 96, 2).items()}
    if empty := [FILES[split] for split, parts in splits.items() if not parts]:
        raise UserError(
            f"--text-dir {folder} has {len(names)} documents ({', '.join(DOCUMENTS)}), and none of them fell to "
            f"{' and '.join(empty)}, which get about 2 of 100 each. Add documents, or give train.txt, valid.txt and "
            f"test.txt. {_listing(folder)}"
        )
    return Texts(name, splits)


def _split_folders(folder: Path) -> dict[str, tuple[Part, ...]] | None:
    """The documents of a folder that has one folder a split; None if there is none to train on beside another split.

    Raises:
        UserError: a split has no folder, or two, or a folder without documents.
    """
    folders = {
        split: [path for path in sorted(folder.iterdir()) if re.fullmatch(names, path.name.lower()) and path.is_dir()]
        for split, names in SPELLINGS.items()
    }
    if not folders["train"] or not folders["val"] + folders["test"]:
        return None
    splits = {}
    for split, found in folders.items():
        names = sorted(_documents(found[0])) if len(found) == 1 else []
        if not names:
            present = ", ".join(path.name for paths in folders.values() for path in paths)
            raise UserError(
                f"--text-dir {folder} has the folders {present}, and not one called {FILES[split]} that holds "
                f"documents ({', '.join(DOCUMENTS)}). Give train, valid and test, or "
                "move them into a folder of another name."
            )
        splits[split] = tuple(file_part(found[0] / name) for name in names)
    return splits


def _documents(folder: Path) -> Iterator[str]:
    """The documents below a folder by their relative paths, also where links lead to.

    Those whose name or folder begins with a dot are left out.

    Raises:
        UserError: a folder or document cannot be read, so that it would be missing.
    """
    for path in walk(folder, "Make it readable, or remove it"):
        if DOCUMENT.search(path.name):
            refuse_unplain(path)
            yield path.relative_to(folder).as_posix()


def share_of_100(name: str) -> int:
    """A number from 0 to 99 that depends on `name` alone, which may be no UTF-8: the same on every machine."""
    return int(hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8], 16) % 100


def _dealt(names: Iterable[str], train: int, val: int) -> dict[str, list[str]]:
    """`names` by split: of 100 about `train`, `val`, and the rest for tests."""
    splits: dict[str, list[str]] = {split: [] for split in FILES}
    for name in names:
        share = share_of_100(name)
        splits["train" if share < train else "val" if share < train + val else "test"].append(name)
    return splits


def _synthetic(dataset: str, data_dir: Path | None) -> dict[str, tuple[Part, ...]]:
    """The topics of Python's `help`: about 400 kB for training, 50 kB for validation, 30 kB for tests."""
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise UserError(
            "--dataset synthetic is the documentation that comes with Python (pydoc_data.topics), and this Python was "
            "installed without it. Install the whole standard library, or give a folder of texts with --text-dir."
        ) from error
    return {
        split: tuple(string_part(f"pydoc_data.topics[{name!r}]", topics[name]) for name in names)
        for split, names in _dealt(sorted(topics), 90, 5).items()
    }


def _shakespeare(dataset: str, data_dir: Path | None) -> dict[str, tuple[Part, ...]]:
    """The usual 90 : 10 split by characters; the first half of the 10 is for validation, the second for tests."""
    [path] = fetch([SHAKESPEARE], data_root(data_dir), "tiny-shakespeare")
    text = path.read_text(encoding="utf-8")
    borders = (0, len(text) * 9 // 10, len(text) * 19 // 20, len(text))
    return {
        split: (string_part(f"{path} from character {start}", text[start:end]),)
        for split, start, end in zip(FILES, borders[:-1], borders[1:], strict=True)
    }


def _docs(dataset: str, data_dir: Path | None) -> dict[str, tuple[Part, ...]]:
    if files := _below_a_root(dataset, data_dir, "Add what is missing"):
        return files
    raise UserError(
        f"the corpus docs was not found: looked for text/docs/train.txt.xz, valid.txt.xz and test.txt.xz below "
        f"{data_root(data_dir)}, and it cannot be downloaded. Put three texts there, give a folder of texts with "
        "--text-dir, or use --dataset synthetic, which needs nothing."
    )


def _wikitext(dataset: str, data_dir: Path | None) -> dict[str, tuple[Part, ...]]:
    """The three files if they are there, else the publisher's archive, read without unpacking it."""
    way_out = "Add what is missing, or have the published archive downloaded: remove the rest or use another --data-dir"
    if files := _below_a_root(dataset, data_dir, way_out):
        return files
    remote = wikitext_archive(dataset)
    what = f"{dataset} (text/{dataset}/train.txt, valid.txt and test.txt; the raw version is another text: --text-dir)"
    [path] = fetch([remote], data_root(data_dir), what)
    return {
        split: (zip_part(path, f"{dataset}/wiki.{file}.tokens", str(remote.sha256)),) for split, file in FILES.items()
    }


def wikitext_archive(name: str) -> RemoteFile:
    """The publisher's archive of "wikitext-2" or "wikitext-103"."""
    digest, size = WIKITEXT[name]
    urls = tuple(mirror.format(name=name) for mirror in WIKITEXT_MIRRORS)
    return RemoteFile(f"text/{name}/{name}-v1.zip", digest, size, urls)


READERS: dict[str, Callable[[str, Path | None], dict[str, tuple[Part, ...]]]] = {
    "synthetic": _synthetic,
    "docs": _docs,
    "tinyshakespeare": _shakespeare,
    **dict.fromkeys(WIKITEXT, _wikitext),
}
DATASETS = tuple(READERS)


def _below_a_root(dataset: str, data_dir: Path | None, way_out: str) -> dict[str, tuple[Part, ...]] | None:
    """The three files of text/<dataset>, from the first place that has any of them."""
    return next(filter(None, (_split_files(root / "text" / dataset, way_out) for root in _roots(data_dir))), None)


def _roots(data_dir: Path | None) -> Iterator[Path]:
    """Roots to look in, the cache last: it need not exist where the first has the files."""
    yield data_root(data_dir)
    yield cache_dir() / "data"


def _split_files(folder: Path, way_out: str, form: str = PUBLISHED_FILE) -> dict[str, tuple[Part, ...]] | None:
    """The files of the three splits; None if there is none; an error if some are missing."""
    found = {split: _split_file(folder, names, form) for split, names in SPELLINGS.items()}
    missing = [FILES[split] for split, path in found.items() if path is None]
    if len(missing) == len(FILES):
        return None
    if missing:
        names = " and ".join(f"{file}.txt" for file in missing)
        text = " and ".join(missing)
        raise UserError(f"{folder} lacks {names} (or .gz, .xz, .bz2): the {text} text. {way_out}. {_listing(folder)}")
    return {split: (file_part(path),) for split, path in found.items() if path is not None}


def _split_file(folder: Path, names: str, form: str) -> Path | None:
    """The file of one split; None if there is none.

    Raises:
        UserError: there are two, and which is meant cannot be told.
    """
    pattern = re.compile(form.format(names=names), re.IGNORECASE)
    found = [folder / name for name in _files(folder) if pattern.fullmatch(name)]
    plain = [path for path in found if path.suffix.lower() not in COMPRESSED] or found
    if len(plain) > 1:
        raise UserError(f"{plain[0]} and {plain[1].name} are both the text of one split. Remove one of them.")
    return plain[0] if plain else None


def _files(folder: Path) -> list[str]:
    """The names of the files in a folder; none where there is no such folder."""
    if not folder.is_dir():
        return []
    try:
        return sorted(path.name for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise UserError(f"cannot read {folder}: {error.strerror}. Make it readable, or choose another.") from error


def _listing(folder: Path) -> str:
    """The files of a folder, for messages."""
    names = _files(folder)
    if not names:
        return "It has no files."
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"Its files are {', '.join(names[:SHOWN])}{more}."
