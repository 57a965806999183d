"""Names of people, by a token classification model that the user brings.

    a folder in the hub's layout: config.json, tokenizer.json and weights
    logits (T, C) -> the label of each token -> tokens of persons, widened to whole words, neighbours joined

Labels of persons are those called PER, PERSON, NAME and the like, with or without B-, I- in front. model.onnx, or
onnx/model.onnx, is run by onnxruntime; model.safetensors by transformers. Code that a folder brings along is never run.
Texts longer than the model's window are read in windows that overlap by a quarter; what one of them takes for a name is
one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from topwork.errors import BadSetting, BadWeights, MissingExtra, WeightsNotHere
from topwork.modalities.recognisers import Stretch

if TYPE_CHECKING:
    from numpy.typing import NDArray

PERSONS = frozenset(
    ("PER", "PERS", "PERSON", "NAME", "NAMES", "NR", "PS", "FIRSTNAME", "LASTNAME", "MIDDLENAME", "GIVENNAME",
     "SURNAME", "PATIENT", "DOCTOR", "STAFF", "PERSONNAME")
)  # fmt: skip
ONNX = ("model.onnx", "onnx/model.onnx")
FILES = ("config.json", "tokenizer.json")
LONGEST = 512  # tokens of a window, where config.json does not say
_BETWEEN = re.compile(r"[ .'’\-]{0,2}")  # of two words of one name: "J. R. Miller", "Anne-Marie", "O'Neil"

Ask = Callable[["NDArray[np.int64]", "NDArray[np.int64]"], "NDArray[Any]"]
"""ids, types (L,) -> logits (L, C)."""


@dataclass(frozen=True)
class Names:
    """People, as a model of the user's tells them."""

    folder: str  # where the model lies

    rank: ClassVar[int] = 2

    def find(self, text: str) -> Iterator[Stretch]:
        """Stretches of whole words."""
        if not any(map(str.isalpha, text)):
            return
        found: list[list[int]] = []
        for start, end, first in sorted(self._tokens(text)):
            start, end = _whole_words(text, start, end)
            joined = bool(found) and (
                start < found[-1][1] or (not first and _BETWEEN.fullmatch(text, found[-1][1], start))
            )
            if joined:
                found[-1][1] = max(found[-1][1], end)
            else:
                found.append([start, end])
        yield from ((start, end) for start, end in found)

    def canonical(self, found: str) -> str:
        """Small letters, single blanks."""
        return " ".join(found.casefold().split())

    def _tokens(self, text: str) -> Iterator[tuple[int, int, bool]]:
        """Place of every token of a person, and whether a name begins there."""
        whole = self.model.tokenizer.encode(text)
        for window in (whole, *whole.overflowing):
            ids, types = (np.array(values, np.int64) for values in (window.ids, window.type_ids))
            said = self.model.ask(ids, types).argmax(-1)  # (L,)
            rows = zip(said.tolist(), window.offsets, window.special_tokens_mask, strict=True)
            for label, (start, end), special in rows:
                if label in self.model.persons and not special and end > start:
                    yield start, end, self.model.persons[label]

    @property
    def model(self) -> Model:
        """Opened once in a process."""
        return opened(self.folder)


@dataclass(frozen=True, eq=False)
class Model:
    """A token classification model."""

    folder: Path
    config: dict[str, Any]

    @cached_property
    def persons(self) -> dict[int, bool]:
        """Label number -> whether a name begins there."""
        labels = {int(number): str(label) for number, label in (self.config.get("id2label") or {}).items()}
        parts = {number: re.fullmatch(r"(?:([A-Z])[-_])?(.*)", label.upper()) for number, label in labels.items()}
        found = {number: p[1] == "B" for number, p in parts.items() if p and re.sub(r"[ _-]", "", p[2]) in PERSONS}
        if not found:
            raise BadWeights(
                f"{self.folder}: none of its labels is a person: {', '.join(labels.values()) or 'no id2label'}. "
                "Expected PER, PERSON or NAME among them"
            )
        return found

    @cached_property
    def tokenizer(self) -> Any:
        """Cuts into windows by itself."""
        try:
            import tokenizers
        except ImportError as error:
            raise MissingExtra.of("transformers", "Finding names") from error
        try:
            made = tokenizers.Tokenizer.from_str((self.folder / "tokenizer.json").read_text(encoding="utf-8"))
        except Exception as error:  # the library raises plain Exception
            raise BadWeights(f"{self.folder / 'tokenizer.json'} cannot be read: {error}") from error
        longest = min(int(self.config.get("max_position_embeddings") or LONGEST), LONGEST)
        made.no_padding()
        made.enable_truncation(longest, stride=longest // 4)
        made.encode_special_tokens = True  # what looks like one in a text is text
        return made

    @cached_property
    def ask(self) -> Ask:
        """The network."""
        for name in ONNX:
            if (self.folder / name).is_file():
                return _by_onnxruntime(self.folder / name)
        if not (self.folder / "model.safetensors").is_file():
            raise WeightsNotHere(f"{self.folder} holds neither model.onnx nor model.safetensors")
        return _by_transformers(self.folder)


@lru_cache(maxsize=2)
def opened(folder: str) -> Model:
    """The model in a folder; BadWeights or WeightsNotHere where there is none."""
    path = Path(folder).expanduser()
    for name in FILES:
        if not (path / name).is_file():
            raise WeightsNotHere(f"{path} has no {name}. Expected a token classification model in the hub's layout")
    try:
        config = json.loads((path / "config.json").read_bytes())
    except ValueError as error:
        raise BadWeights(f"{path / 'config.json'} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise BadSetting(f"{path / 'config.json'} holds no settings of a model")
    model = Model(path, config)
    _ = model.persons
    return model


def _whole_words(text: str, start: int, end: int) -> Stretch:
    """A token is a piece of a word; half a name must not stay."""
    while start < end and text[start].isspace():
        start += 1
    while start > 0 and text[start - 1].isalnum() and text[start].isalnum() and _spaced(text[start - 1]):
        start -= 1
    while end < len(text) and text[end].isalnum() and text[end - 1].isalnum() and _spaced(text[end]):
        end += 1
    return start, end


def _spaced(character: str) -> bool:
    """Whether its script has blanks between words."""
    return not (
        "\u0e00" <= character <= "\u0eff" or "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff"
    )


def _by_onnxruntime(file: Path) -> Ask:
    from topwork.nn.session import session

    run = session(file)
    names = {given.name for given in run.get_inputs()}
    if "input_ids" not in names:
        raise BadWeights(f"{file} takes {', '.join(sorted(names))}. Expected input_ids among them")

    def ask(ids: NDArray[np.int64], types: NDArray[np.int64]) -> NDArray[Any]:
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        answer: Any = run.run(None, {name: values[None] for name, values in given.items() if name in names})[0]
        return answer[0]  # (L, C)

    return ask


def _by_transformers(folder: Path) -> Ask:
    try:
        import torch
        from transformers import AutoModelForTokenClassification
    except ImportError as error:
        raise MissingExtra.of("transformers", f"Finding names by {folder}") from error
    try:
        model = AutoModelForTokenClassification.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False
        ).eval()
    except Exception as error:  # files of all kinds
        raise BadWeights(f"{folder} holds no token classification model: {str(error).splitlines()[0]}") from error

    def ask(ids: NDArray[np.int64], types: NDArray[np.int64]) -> NDArray[Any]:
        given = {"input_ids": torch.from_numpy(ids[None])}
        if getattr(model.config, "type_vocab_size", 0) > 1:
            given["token_type_ids"] = torch.from_numpy(types[None])
        with torch.inference_mode():
            return model(**given).logits[0].numpy()

    return ask
