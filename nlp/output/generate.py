"""Generate text with a language model, one token after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import UserError
from nlp.text.vocabulary import Vocabulary

PROMPT = 16  # tokens of a text that a sample continues
TEMPERATURE = 0.8


@torch.no_grad()
def generate(
    model: nn.Module,
    prompt_ids: Sequence[int] | np.ndarray,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
    context: int,
) -> np.ndarray:
    """Continue a prompt.

    Args:
        model: Token ids ``[1, T]`` to logits ``[1, T, V]``; run in evaluation mode, its mode restored.
        prompt_ids: What to continue, at least one token.
        length: Tokens to add.
        temperature: Divides the logits; 0 takes the likeliest token.
        top_k: Draw from the `top_k` likeliest tokens; None: from all.
        generator: Decides the draws, on the CPU: the same text on every device. None: torch's global one.
        context: Longest input of the model; of a longer text it reads the last `context` tokens.

    Returns:
        The prompt and what follows it, int64 ``[len(prompt_ids) + length]``.

    Raises:
        UserError: an empty prompt, or a setting out of its range.
    """
    if len(prompt_ids) == 0:
        raise UserError("the prompt is empty, and a model needs a token to go on from. Give --prompt some text.")
    check_settings(length, temperature, top_k)
    device = next(model.parameters()).device
    ids = torch.tensor(np.asarray(prompt_ids, np.int64))
    mode = model.training
    model.eval()
    try:
        for _ in range(length):
            logits = model(ids[None, -context:].to(device))[0, -1].float().cpu()
            ids = torch.cat([ids, choose(logits, temperature, top_k, generator)])
    finally:
        model.train(mode)
    return ids.numpy()


def continued(
    model: nn.Module, tokens: np.ndarray, vocabulary: Vocabulary, length: int, context: int
) -> dict[str, str]:
    """Continue the beginning of a text, sampled with seed 0: "prompt" and "text".

    Args:
        model: Token ids ``[1, T]`` to logits ``[1, T, V]``.
        tokens: The text; its first `PROMPT` tokens are the prompt.
        vocabulary: Of the tokens.
        length: Tokens to write.
        context: Longest input of the model.
    """
    prompt, generator = np.asarray(tokens[:PROMPT], np.int64), torch.Generator().manual_seed(0)
    ids = generate(model, prompt, length, temperature=TEMPERATURE, generator=generator, context=context)
    return {"prompt": vocabulary.decode(prompt), "text": vocabulary.decode(ids[len(prompt) :])}


def choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None) -> Tensor:
    """One token, int64 ``[1]``, by logits ``[V]``; of equal ones at temperature 0 the first."""
    if temperature == 0:
        return logits.argmax(keepdim=True)
    kept, tokens = logits.topk(min(top_k or len(logits), len(logits)))
    scaled = (kept - kept[0]) / temperature  # at most 0: no temperature is too low
    return tokens[torch.multinomial(scaled.softmax(dim=0), 1, generator=generator)]


def check_settings(length: int, temperature: float, top_k: int | None) -> None:
    """Refuse impossible settings."""
    if length < 0:
        raise UserError(f"--length {length}: give the number of tokens to add, 0 or more.")
    if not temperature >= 0:
        raise UserError(f"--temperature {temperature}: give 0, which takes the likeliest token, or more.")
    if top_k is not None and top_k < 1:
        raise UserError(f"--top-k {top_k}: give 1 or more, or leave it out to draw from all tokens.")
    if top_k is not None and temperature == 0:
        raise UserError("--temperature 0 takes the likeliest token and leaves --top-k without effect. Leave one out.")
