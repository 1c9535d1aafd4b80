"""Three small texts, where they are written, and where their tokens are kept."""

from pathlib import Path

TEXTS = {"train": "Das Haus ist groß.\n\n  Es steht.\n" * 40, "valid": "Das Boot ist groß.\n", "test": "Es ist es.\n"}


def written(folder: Path, texts: dict[str, str]) -> Path:
    folder.mkdir(parents=True)
    for split, text in texts.items():
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


def made(cache: Path) -> list[Path]:
    """The folders of tokens in the cache."""
    return sorted(path for path in (cache / "nlp").iterdir() if path.is_dir())
