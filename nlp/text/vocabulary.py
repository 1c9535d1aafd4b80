"""Vocabularies: text to token ids and back, by byte-pair encoding or character by character.

Byte pairs are learnt by `tokenizers` on bytes, so that any text can be encoded and decoding restores it;
words are split as in GPT-2. A vocabulary is plain data, kept as JSON in a run's folder; equal
fingerprints mean equal vocabularies.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

KINDS = ("bpe", "char")
BYTES = 256  # tokens that every byte-pair vocabulary has: the single bytes
MIN_FREQUENCY = 2  # a pair that occurs once gets no token
UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # an unknown character is decoded to this


class Vocabulary(ABC):
    """Text to token ids 0 ... `size` - 1, and back. With `lower`, text is turned to lower case first."""

    kind: ClassVar[str]
    lower: bool

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of tokens."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """The ids of `text`, of the type `dtype`, ``[N]``."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text that has these ids."""

    @abstractmethod
    def _content(self) -> dict[str, Any]:
        """The content, apart from `kind` and `lower`."""

    @property
    def dtype(self) -> type[np.integer[Any]]:
        """The smaller of uint16 and int32 that holds every id."""
        return np.uint16 if self.size <= 1 << 16 else np.int32

    def to_json(self) -> str:
        """All of it as text; equal vocabularies give equal texts."""
        content = {"kind": self.kind, "lower": self.lower, **self._content()}
        return json.dumps(content, ensure_ascii=False, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Vocabulary:
        """The vocabulary that `to_json` wrote.

        Raises:
            UserError: `text` is not a vocabulary.
        """
        try:
            content = json.loads(text)
            if content["kind"] == "char":
                return CharVocabulary(content["characters"], content["lower"])
            if content["kind"] != "bpe":
                raise ValueError(content["kind"])
            return BpeVocabulary(content["tokens"], content["merges"], content["lower"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"this is not a vocabulary that was saved by nlp ({error!r}). Restore the file, or train again."
            ) from error

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits: equal for equal vocabularies, different for others."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()[:16]


class CharVocabulary(Vocabulary):
    """One token a character; id 0 stands for every character that is not among `characters`."""

    kind = "char"

    def __init__(self, characters: str, lower: bool = False) -> None:
        self.characters, self.lower = characters, lower

    @property
    def size(self) -> int:
        """Number of characters, and one for the unknown."""
        return 1 + len(self.characters)

    @cached_property
    def _id_of(self) -> np.ndarray:
        """The id of each Unicode code point."""
        table = np.zeros(0x110000, self.dtype)
        table[_code_points(self.characters)] = np.arange(1, self.size)
        return table

    def encode(self, text: str) -> np.ndarray:
        """One id a character, 0 where it is unknown.

        Example:
            >>> CharVocabulary("abc").encode("cab!").tolist()
            [3, 1, 2, 0]
        """
        return self._id_of[_code_points(text.lower() if self.lower else text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters; U+FFFD for id 0."""
        return "".join(self.characters[number - 1] if number else UNKNOWN for number in ids)

    def _content(self) -> dict[str, Any]:
        return {"characters": self.characters}


class BpeVocabulary(Vocabulary):
    """Byte pairs.

    Args:
        tokens: The tokens by id, spelt in the 256 printable characters that GPT-2 writes bytes in.
        merges: Pairs of tokens that become one, in order of priority.
        lower: Turn text to lower case before encoding.
    """

    kind = "bpe"

    def __init__(self, tokens: Sequence[str], merges: Sequence[Sequence[str]], lower: bool = False) -> None:
        from tokenizers import models

        self.tokens, self.lower = list(tokens), lower
        self.merges = [(left, right) for left, right in merges]
        numbered = {token: number for number, token in enumerate(self.tokens)}
        self._tokenizer = _byte_level(models.BPE(vocab=numbered, merges=self.merges))

    @property
    def size(self) -> int:
        """Number of tokens: less than was asked for if the training text had no more pairs to join."""
        return len(self.tokens)

    def encode(self, text: str) -> np.ndarray:
        """The ids; a text cut before white space that follows something else has the ids of its parts."""
        [encoding] = self._tokenizer.encode_batch_fast([text.lower() if self.lower else text])
        return np.array(encoding.ids, self.dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; U+FFFD for bytes that are not UTF-8, as where a character is cut in two."""
        return self._tokenizer.decode([int(number) for number in ids], skip_special_tokens=False)

    def _content(self) -> dict[str, Any]:
        return {"tokens": self.tokens, "merges": self.merges}


def train_vocabulary(kind: str, blocks: Iterable[str], size: int = 8000, lower: bool = False) -> Vocabulary:
    """Learn a vocabulary from a text.

    Args:
        kind: "bpe", or "char": all characters of the text.
        blocks: The text, in pieces that are cut as `nlp.text.blocks.blocks` does.
        size: Tokens of "bpe", 256 or more; "char" has as many as there are characters.
        lower: Turn text to lower case first.

    Raises:
        UserError: an unknown kind, or a size that does not hold the 256 single bytes.
    """
    check_choice(kind, size)
    lowered = (block.lower() for block in blocks) if lower else blocks
    if kind == "char":
        characters: set[str] = set()
        for block in lowered:
            characters.update(block)
        return CharVocabulary("".join(sorted(characters)), lower)
    return _train_byte_pairs(lowered, size, lower)


def check_choice(kind: str, size: int) -> None:
    """Refuse what `train_vocabulary` cannot learn, before anything is read."""
    if kind not in KINDS:
        raise UserError(f"--vocabulary {kind}: there is no such kind. Use {' or '.join(KINDS)}.")
    if kind == "bpe" and size < BYTES:
        raise UserError(
            f"--vocabulary-size {size}: byte pairs start from the {BYTES} single bytes. Give {BYTES} or more."
        )


def _train_byte_pairs(blocks: Iterable[str], size: int, lower: bool) -> BpeVocabulary:
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=MIN_FREQUENCY,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(blocks, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return BpeVocabulary(sorted(model["vocab"], key=model["vocab"].__getitem__), model["merges"], lower)


def _byte_level(model: Any) -> Tokenizer:
    """`model` on the bytes of the words that GPT-2's pattern finds."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _code_points(text: str) -> np.ndarray:
    """The Unicode numbers of the characters, ``[N]``."""
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)
