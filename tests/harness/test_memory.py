"""The option that says what a forward pass keeps."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from harness.errors import UserError
from harness.options import make
from harness.run.memory import MemoryConfig, bytes_of
from nlp.config import Config


@dataclass(frozen=True, kw_only=True)
class Compiled(MemoryConfig):
    compile: bool = False


@pytest.mark.parametrize(
    ("text", "number"), [("0", 0), ("4096", 4096), ("64K", 65536), ("3m", 3 * 2**20), ("2G", 2**31)]
)
def test_a_number_of_bytes(text, number):
    assert bytes_of(text) == number
    assert MemoryConfig(memory=text).keeps("dfa") == number


def test_replay_and_nothing():
    assert MemoryConfig(memory="replay").keeps("sdfa") == "replay"
    assert MemoryConfig().keeps("bp") is None


@pytest.mark.parametrize("text", ["", "G", "forward", "1.5G", "-1", "3X"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(UserError, match="give replay, or a number of bytes"):
        MemoryConfig(memory=text).keeps("dfa")


@pytest.mark.parametrize("method", ["bp", "fa"])
def test_methods_that_need_the_graphs_are_refused(method):
    with pytest.raises(UserError, match=f"--memory replay: .*{method} walks back"):
        MemoryConfig(memory="replay").keeps(method)
    with pytest.raises(UserError, match="walks back"):
        make(Config, memory="replay", method=method)


def test_a_model_compiled_as_a_whole_is_refused():
    with pytest.raises(UserError, match="Leave one out"):
        Compiled(memory="replay", compile=True).keeps("dfa")
