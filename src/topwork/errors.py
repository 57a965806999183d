"""Every error a user can meet. One line each: what was wrong, what was expected, the fix.

TopworkError
├── BadData        (ValueError)         a file, row, column or image that cannot be used
├── BadSetting     (ValueError)         an option, spec or combination that cannot work
│   └── UnknownName (LookupError)       no such method, split, source or backbone
├── BadWeights     (ValueError)         weights that are corrupt, lie, or do not fit
│   └── WeightsNotHere (FileNotFoundError)  weights that would have to be downloaded
├── MissingExtra   (ImportError)        an optional dependency is not installed
├── StoreError     (OSError)            cache or output folder: full, unwritable, of another version
├── ProofFailed    (RuntimeError)       a check of our own promises did not hold
└── ProcessLost    (RuntimeError)       another process of the same run has ended
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MANY = 100  # names are not listed any more in a message


class TopworkError(Exception):
    """Root of every error that Topwork raises on purpose; the command line shows it as one line, exit code 2."""

    def __str__(self) -> str:
        return " ".join(str(a) for a in self.args)  # KeyError and friends would quote their message


class BadData(TopworkError, ValueError):
    """A file, row, column or image cannot be used."""


class BadSetting(TopworkError, ValueError):
    """An option, a spec or a combination of them cannot work."""


class UnknownName(BadSetting, LookupError):
    """No method, split, source or backbone of this name."""

    @classmethod
    def among(cls, name: str, place: str, known: Iterable[str]) -> UnknownName:
        """Say which names exist and which one was probably meant."""
        known = sorted(known)
        near = difflib.get_close_matches(name, known, n=3)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        if len(known) <= MANY:
            return cls(f"No '{name}' in {place}. Expected one of: {', '.join(known)}.{hint}")
        return cls(
            f"No '{name}' in {place}, which has {len(known):,} names.{hint}" + "".join(f" Or '{n}'?" for n in near[1:])
        )


class BadWeights(TopworkError, ValueError):
    """Weights are corrupt, differ from their card, or do not fit the architecture."""


class WeightsNotHere(BadWeights, FileNotFoundError):
    """Weights are not on this machine and cannot be fetched."""


class MissingExtra(TopworkError, ImportError):
    """An optional dependency is not installed."""

    @classmethod
    def of(cls, extra: str, what: str) -> MissingExtra:
        """Say which command installs it."""
        return cls(f"{what} needs the '{extra}' extra. Install it with: pip install 'topwork[{extra}]'")


class StoreError(TopworkError, OSError):
    """The cache or an output folder is full, unwritable, corrupt or of another version."""


class ProofFailed(TopworkError, RuntimeError):
    """One of our own promises was checked and did not hold; no artefact is left behind."""


class ProcessLost(TopworkError, RuntimeError):
    """Another process of the same run has ended, so this one cannot go on."""
