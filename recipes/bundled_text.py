"""Distil the bundled text backbone: MiniLM's sentence embeddings into one row per piece of an English vocabulary.

    python recipes/bundled_text.py --teacher MINILM --text reviews.txt sentences.txt --out FOLDER [--work CACHE]

1 vocabulary   the teacher's pieces without special, unused and non-Latin ones, then words seen 3 times in the texts
2 alone        the teacher on [CLS] piece [SEP], mean of its last states
3 sentences    the teacher on the texts' sentences (2 to 60 words, each once), mean of its last states; the main axes
               of these are the features
4 rows         prior from 2, on the axes, frequent pieces counted less (SIF); ridge regression of the sentences on their
               pieces, held to the prior; four bits a number (`topwork.nn.static_embedding`)
5 folder       card.json, model.safetensors, vocabulary.txt: what `topwork.backbones.static_text` opens

A line of a text file is cut into sentences; with a tab in it, what stands before is one. --work keeps what the teacher
said, so that a second run with other settings takes a minute. Needs the `train` extra for the teacher; what comes out
needs numpy and scipy.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
import os
import platform
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from topwork.modalities.wordpiece import UNKNOWN, WordPiece
from topwork.nn.static_embedding import Reading, pack, pool, principal, regress, shares, sif, unpack
from topwork.store.weights import sha256
from topwork.types import digest

LATIN_ENDS = 0x250  # code point after Latin Extended-B
SENTENCE_ENDS = re.compile(r"(?<=[.!?])[\"')]*\s+")
PART = 20_000  # sentences whose embeddings are saved together


@dataclass(frozen=True)
class Settings:
    """Numbers of the recipe, chosen on the training parts of sst2, trec and banking77, by 3-fold cross-validation."""

    features: int = 384  # D, of a row
    least_seen: int = 3  # a word of the texts with fewer occurrences gets no row of its own
    sentences: int = 60_000  # seen by the teacher
    a: float = 1e-2  # of SIF, for the prior
    penalty: float = 1.0  # pull to the prior; 1 = as strong as one sentence made of this piece alone
    steps: int = 12  # of conjugate gradients
    seed: int = 0  # draws the sentences
    axes: int = 192  # this and the next three: topwork.nn.static_embedding.Reading
    decay: float = 0.8
    early: float = 0.5
    highest: float = 0.35


class Teacher:
    """A BERT encoder written out: piece numbers (B, T) and lengths (B,) -> mean of the last states (B, D)."""

    def __init__(self, folder: Path) -> None:
        from safetensors.torch import load_file

        self.config = json.loads((folder / "config.json").read_bytes())
        tensors = load_file(folder / "model.safetensors")
        self.w = {name.removeprefix("bert."): t.float() for name, t in tensors.items() if t.is_floating_point()}
        self.width = int(self.config["hidden_size"])

    def _linear(self, x: Any, name: str) -> Any:
        from torch.nn.functional import linear

        return linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def _norm(self, x: Any, name: str) -> Any:
        from torch.nn.functional import layer_norm

        shift = (self.w[f"{name}.weight"], self.w[f"{name}.bias"])
        return layer_norm(x, (self.width,), *shift, self.config["layer_norm_eps"])

    def __call__(self, ids: Any, lengths: Any) -> Any:
        """Mean over the pieces that are there, [CLS] and [SEP] among them."""
        import torch
        from torch.nn.functional import gelu, scaled_dot_product_attention

        B, T = ids.shape
        heads = self.config["num_attention_heads"]
        x = self.w["embeddings.word_embeddings.weight"][ids] + self.w["embeddings.position_embeddings.weight"][:T]
        x = self._norm(x + self.w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")  # (B, T, D)
        there = torch.arange(T)[None] < lengths[:, None]  # (B, T)
        for i in range(self.config["num_hidden_layers"]):
            at = f"encoder.layer.{i}"
            q, k, v = (
                self._linear(x, f"{at}.attention.self.{part}").view(B, T, heads, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            seen = scaled_dot_product_attention(q, k, v, attn_mask=there[:, None, None])  # (B, heads, T, D / heads)
            seen = self._linear(seen.transpose(1, 2).reshape(B, T, -1), f"{at}.attention.output.dense")
            x = self._norm(x + seen, f"{at}.attention.output.LayerNorm")
            wide = gelu(self._linear(x, f"{at}.intermediate.dense"))
            x = self._norm(x + self._linear(wide, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        return (x * there[:, :, None]).sum(1) / lengths[:, None]

    def embed(self, sequences: Sequence[Sequence[int]], batch_pieces: int = 4096) -> np.ndarray:
        """Embeddings (N, D) of piece numbers of any length, those of like length together."""
        import torch

        order = sorted(range(len(sequences)), key=lambda n: len(sequences[n]))
        x = np.zeros((len(sequences), self.width), np.float32)
        begun = heard = time.monotonic()
        while order:
            size = max(1, batch_pieces // len(sequences[order[-1]]))  # the longest first: memory shows at once
            rows, order = order[-size:], order[:-size]
            lengths = torch.tensor([len(sequences[n]) for n in rows])
            ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.long)
            for line, n in zip(ids, rows, strict=True):
                line[: len(sequences[n])] = torch.tensor(sequences[n])
            with torch.inference_mode():
                x[rows] = self(ids, lengths).numpy()
            if time.monotonic() - heard > 30:
                heard = time.monotonic()
                print(f"  {len(sequences) - len(order):,} of {len(sequences):,} in {heard - begun:.0f} s", flush=True)
        return x


def sentences(files: Sequence[Path]) -> list[str]:
    """The sentences of 2 to 60 words, each once whatever its case, in the files' order."""
    found: dict[str, str] = {}
    for file in files:
        for line in file.read_text(encoding="utf-8").split("\n"):
            first, tab, _ = line.partition("\t")
            for sentence in [first] if tab else SENTENCE_ENDS.split(line.strip()):
                if 2 <= len(sentence.split()) <= 60:
                    found.setdefault(sentence.strip().lower(), sentence.strip())
    return list(found.values())


def is_english(piece: str) -> bool:
    """Whether a piece of the teacher's vocabulary can stand in English text."""
    if piece.startswith("[") and piece.endswith("]") and len(piece) > 2:
        return piece == UNKNOWN
    return all(ord(char) < LATIN_ENDS or not char.isalnum() for char in piece)


def frequent_words(texts: Sequence[str], teacher_pieces: WordPiece, least: int) -> list[str]:
    """Words of letters that the teacher cuts, and that were seen at least so often."""
    seen = collections.Counter(word for text in texts for word in teacher_pieces.words(text))
    return [
        w for w, n in seen.items() if n >= least and w.isalpha() and w.isascii() and len(teacher_pieces.pieces(w)) > 1
    ]


def framed(wordpiece: WordPiece, texts: Sequence[str]) -> Iterator[list[int]]:
    """Piece numbers of each text between [CLS] and [SEP]."""
    numbers, ends = wordpiece.encode(texts)
    first, last = wordpiece.vocabulary["[CLS]"], wordpiece.vocabulary["[SEP]"]
    for start, stop in pairwise(ends):
        yield [first, *numbers[start:stop].tolist(), last]


def remembered(work: Path, name: str, make: Any) -> tuple[np.ndarray, float]:
    """What `make` gives, and the seconds it took when it was made; from the work folder where it is there."""
    file = work / f"{name}.npz"
    if not file.exists():
        begun = time.monotonic()
        x = make()
        np.savez(file.with_suffix(".part.npz"), x=x, seconds=time.monotonic() - begun)
        file.with_suffix(".part.npz").replace(file)
    with np.load(file) as kept:
        return kept["x"], float(kept["seconds"])


def distil(
    alone: np.ndarray, targets: np.ndarray, numbers: np.ndarray, ends: np.ndarray, seen: np.ndarray, s: Settings
) -> tuple[np.ndarray, dict[str, float]]:
    """The rows (V, D), and how much of the sentence embeddings' variance they explain."""
    axes, mean = principal(targets, s.features)
    f = (targets - mean) @ axes  # (N, D)
    prior = (alone - alone.mean(axis=0)) @ axes * sif(seen, s.a)[:, None]  # (V, D)
    matrix = shares(numbers, ends, len(alone))
    guess = matrix @ prior
    prior *= np.float32((guess * f).sum() / np.square(guess).sum())  # the one factor that brings it to the targets
    rows = regress(matrix, f, prior, s.penalty, s.steps, lambda n, left: print(f"  step {n}: {left:.1e}", flush=True))
    explained = {name: _explained(pool(e, numbers, ends), f) for name, e in (("prior", prior), ("rows", rows))}
    explained["rows in four bits"] = _explained(pool(unpack(**pack(rows)), numbers, ends), f)
    return rows, explained


def _explained(x: np.ndarray, f: np.ndarray) -> float:
    return round(float(1 - np.square(x - f).sum() / np.square(f).sum()), 4)


def write(folder: Path, rows: np.ndarray, pieces: Sequence[str], reading: Reading, facts: dict[str, Any]) -> None:
    """The backbone's folder; the card last."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(pack(rows), folder / "model.safetensors")
    (folder / "model.safetensors").chmod(0o644)
    (folder / "vocabulary.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    files = [folder / name for name in ("model.safetensors", "vocabulary.txt")]
    card = {
        "name": "topwork-text-small",
        "modality": "text",
        "languages": ["en"],
        "file": files[0].name,
        "vocabulary": files[1].name,
        "architecture": f"static embedding, {rows.shape[0]} x {rows.shape[1]}, four bits",
        "task": "text features (no classifier), English, upper and lower case alike",
        "num_features": reading.width(rows.shape[1]),
        "reading": dataclasses.asdict(reading),
        "num_parameters": int(rows.size),
        "files": {file.name: {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files},
        **facts,
    }
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Run the recipe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--teacher", type=Path, required=True, help="folder with config.json, model.safetensors, vocab.txt"
    )
    parser.add_argument("--text", type=Path, required=True, nargs="+", help="free text, UTF-8")
    parser.add_argument("--out", type=Path, required=True, help="folder of the backbone")
    parser.add_argument("--work", type=Path, help="where the teacher's answers are kept; default: OUT.work")
    parser.add_argument("--note", default="", help="for the card: where the texts come from, their licences")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    for field in dataclasses.fields(Settings):
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=type(field.default), default=field.default)
    args = parser.parse_args()
    s = Settings(**{field.name: getattr(args, field.name) for field in dataclasses.fields(Settings)})
    import torch

    torch.set_num_threads(args.threads)
    begun = time.monotonic()
    teacher = Teacher(args.teacher)
    whole = WordPiece.of((args.teacher / "vocab.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n"))
    texts = sentences(args.text)
    words = frequent_words(texts, whole, s.least_seen)
    kept = [piece for piece in whole.vocabulary if is_english(piece)]
    pieces = [*kept, *words]
    own = WordPiece.of(pieces)
    print(f"{len(texts):,} sentences, {len(pieces):,} pieces ({len(words):,} of them words of the texts)", flush=True)

    state = {"teacher": sha256(args.teacher / "model.safetensors"), "text": [sha256(file) for file in args.text]}
    work = (args.work or args.out.with_suffix(".work")) / digest(state)
    work.mkdir(parents=True, exist_ok=True)
    print(f"the teacher's answers: {work}", flush=True)
    ids = [[whole.vocabulary["[CLS]"], whole.vocabulary[piece], whole.vocabulary["[SEP]"]] for piece in kept]
    name = f"alone-{digest(pieces)}"
    alone, seconds = remembered(work, name, lambda: teacher.embed([*ids, *framed(whole, words)]))
    order = np.random.default_rng(s.seed).permutation(len(texts))[: s.sentences]
    parts = []
    for first in range(0, len(order), PART):
        some = [texts[n] for n in order[first : first + PART]]
        x, took = remembered(work, f"sentences-{digest(some)}", lambda some=some: teacher.embed([*framed(whole, some)]))
        parts.append(x)
        seconds += took
    solving = time.monotonic()
    seen = np.bincount(own.encode(texts)[0], minlength=len(pieces))
    numbers, ends = own.encode([texts[n] for n in order])
    rows, explained = distil(alone, np.concatenate(parts), numbers, ends, seen, s)
    print(f"share of the sentence embeddings' variance: {explained}")
    facts = {
        "licence": "Apache-2.0",
        "source": "distilled by recipes/bundled_text.py",
        "trained_on": f"what all-MiniLM-L6-v2 (Apache-2.0) says about {len(order):,} sentences of "
        f"{', '.join(file.name for file in args.text)} and about each of {len(pieces):,} pieces alone; no labels",
        "teacher": {"name": "all-MiniLM-L6-v2", "sha256": state["teacher"], "licence": "Apache-2.0"},
        "data": [{"file": file.name, "bytes": file.stat().st_size, "sha256": sha256(file)} for file in args.text],
        "note": args.note,
        "method": {"recipe": "recipes/bundled_text.py", **dataclasses.asdict(s), "explained": explained},
        "seconds": {"teacher": round(seconds), "solving": round(time.monotonic() - solving)},
        "machine": f"{os.cpu_count()} x {platform.machine()}, {args.threads} thread(s), torch {torch.__version__}",
    }
    write(args.out, rows, pieces, Reading(s.axes, s.decay, s.early, s.highest), facts)
    size = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"{args.out}: {size / 1e6:.2f} MB, {time.monotonic() - begun:.0f} s in this run")


if __name__ == "__main__":
    main()
