"""Texts without what tells who somebody is: masked, or under a pseudonym that a secret key makes.

    Redaction(("email", "phone")).text("Write to anna@example.org")           "Write to [EMAIL]"
    Redaction(kinds, "pseudonym", key).text(...)                              "Write to [EMAIL_5b2c09d1e7f3a846]"

    pseudonym = first 64 bits of HMAC-SHA256(key, kind + NUL + canonical spelling)

The same person has the same pseudonym wherever the key is the same; without the key nobody can try out whether a guess
fits (RFC 2104). Stretches that overlap become one, under the name of the surest. A mask is not read again, so
redacting twice changes nothing.
"""

from __future__ import annotations

import hmac
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from topwork import plugins
from topwork.errors import BadSetting
from topwork.modalities.recognisers import Recogniser
from topwork.modalities.text_folding import fold, where

ROOM = "modalities.recognisers"
HOW = ("mask", "pseudonym")
NEEDY = frozenset({"names"})  # kinds that need a folder, and so are never found unless asked for
KEY_VARIABLE = "TOPWORK_REDACT_KEY"
KEY_BYTES = 16  # at least
_MASK = re.compile(r"(\[[A-Z][A-Z_]{1,30}(?:_[0-9a-f]{16})?\])")
_PASSES = 8  # what is next to a mask may be found in the next one; more than two are rare


class Span(NamedTuple):
    """A stretch of a text and what it is."""

    start: int
    end: int
    kind: str


def kinds() -> tuple[str, ...]:
    """Those that need nothing from the user."""
    return tuple(name for name in plugins.names(ROOM) if name not in NEEDY)


def specs_of(asked: str | Iterable[str] | bool | None) -> tuple[str, ...]:
    """Recognisers as named, "email,phone" or a list; None or True: all that need nothing."""
    if asked is None or isinstance(asked, bool):
        return kinds()
    if isinstance(asked, str):
        return tuple(part.strip() for part in re.split(r",(?![^(]*\))", asked) if part.strip())
    return tuple(asked)


@dataclass(frozen=True)
class Redaction:
    """What is looked for, and what stands in its place."""

    kinds: tuple[str, ...]  # specs of recognisers
    how: str = "mask"  # or "pseudonym"
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def of(cls, asked: str | Iterable[str] | bool | None = None, how: str = "mask", key: bytes = b"") -> Redaction:
        """From names, "email,phone" or a list; None or True: all that need nothing; BadSetting where it cannot work."""
        specs = specs_of(asked)
        if how not in HOW:
            raise BadSetting(f"how '{how}': expected mask or pseudonym")
        if bare := [spec for spec in specs if spec in NEEDY]:
            raise BadSetting(f"{bare[0]} need a model that tells them: --{bare[0]} local:FOLDER or hf:ORG/NAME")
        if not specs:
            raise BadSetting(f"no kinds to redact. Expected some of: {', '.join(kinds())}")
        if how == "pseudonym" and len(key) < KEY_BYTES:
            raise BadSetting(
                f"pseudonyms need a secret key of at least {KEY_BYTES} bytes: --key FILE, or {KEY_VARIABLE} in the "
                "environment. Without one anybody could try out who is meant"
            )
        made = cls(tuple(dict.fromkeys(specs)), how, key if how == "pseudonym" else b"")
        _ = made.recognisers
        return made

    @classmethod
    def of_facts(cls, facts: Mapping[str, Any]) -> Redaction:
        """From `facts`, as a model keeps them."""
        return cls.of([str(kind) for kind in facts["kinds"]])

    def facts(self) -> dict[str, Any]:
        """What a model keeps, so that it reads texts as those it learnt from: plain JSON."""
        return {"how": self.how, "kinds": list(self.kinds)}

    @cached_property
    def recognisers(self) -> dict[str, Recogniser]:
        """By the name that stands in a mask."""
        return {plugins.parse(spec)[0]: plugins.make(ROOM, spec) for spec in self.kinds}

    def spans(self, text: str) -> list[Span]:
        """What is found, in order, without overlaps."""
        return list(self._spans(text))

    def _spans(self, text: str) -> Iterator[Span]:
        folded, places = fold(text)
        found = [
            Span(*stretch, kind) for kind, recogniser in self.recognisers.items() for stretch in recogniser.find(folded)
        ]
        for span in resolved(found, {kind: recogniser.rank for kind, recogniser in self.recognisers.items()}):
            yield Span(*where(places, span.start, span.end), span.kind)

    def text(self, text: str, counts: Counter[str] | None = None) -> str:
        """The text with masks; `counts` learns how many of each kind."""
        for _ in range(_PASSES):
            parts = _MASK.split(text)
            done = [part if at % 2 else self._once(part, counts) for at, part in enumerate(parts)]
            if done == parts:
                return text
            text = "".join(done)
        return text

    def _once(self, text: str, counts: Counter[str] | None) -> str:
        pieces, at = [], 0
        for start, end, kind in self._spans(text):
            pieces += [text[at:start], self._name(kind, text[start:end])]
            at = end
            if counts is not None:
                counts[kind] += 1
        return "".join([*pieces, text[at:]]) if pieces else text

    def _name(self, kind: str, found: str) -> str:
        if self.how == "mask":
            return f"[{kind.upper()}]"
        canonical = self.recognisers[kind].canonical(fold(found)[0])
        code = hmac.digest(self.key, f"{kind}\0{canonical}".encode(), "sha256")[:8].hex()
        return f"[{kind.upper()}_{code}]"


def resolved(spans: Sequence[Span], ranks: Mapping[str, int]) -> list[Span]:
    """In order; those that overlap become one, under the kind of the lowest rank, and among these of the longest."""
    out: list[Span] = []
    best = (0, 0)
    for span in sorted(spans, key=lambda span: (span.start, -span.end, ranks[span.kind])):
        rank = (ranks[span.kind], span.start - span.end)
        if not out or span.start >= out[-1].end:
            out.append(span)
            best = rank
            continue
        last = out[-1]
        out[-1] = Span(last.start, max(last.end, span.end), span.kind if rank < best else last.kind)
        best = min(rank, best)
    return out


def read_key(file: str | Path | None) -> bytes:
    """The key in a file, or in the environment; b"" where there is none."""
    if file is None:
        return os.environ.get(KEY_VARIABLE, "").strip().encode()
    try:
        return Path(file).expanduser().read_bytes().strip()
    except OSError as error:
        raise BadSetting(f"--key {file} cannot be read: {error.strerror or error}") from error
