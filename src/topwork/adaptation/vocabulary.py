"""What a reader's tokens mean to a method: how many there are, which one hides another, which are no words."""

from __future__ import annotations

from typing import Any

from topwork.adaptation import Vocabulary

MASKS = ("[MASK]", "<mask>", "<|mask|>", "[mask]")


def vocabulary_of(reader: Any) -> Vocabulary | None:
    """Of a reader with a tokenizer.json; None of any other."""
    tokenizer = getattr(reader, "tokenizer", None)
    if tokenizer is None:
        return None
    numbers = tokenizer.get_vocab(with_added_tokens=True)
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    mask = next((numbers[name] for name in MASKS if name in numbers), None)
    return Vocabulary(max(numbers.values(), default=-1) + 1, mask, tuple(sorted(special.values())))
