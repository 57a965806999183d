"""From unlabelled texts to an encoder of one's own: read, train, ask whether it was worth it, write.

texts.gather             files, folders, tables          -> TextMaterial: counts, a hash
encoder                  --start, or --arch              -> Encoder: weights, tokenizer
TextMaterial.tokens      every text once                 -> windows of tokens, memory-mapped
loop.train               OUT.run/                        resumable after any death, to the bit
scores                   hidden tokens of windows kept aside, or a probe on labelled texts
Encoder.write            OUT/                            the hub's layout: local:OUT
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from topwork import plugins, pretraining, sources
from topwork.account import code_version
from topwork.adaptation import Method, loop
from topwork.adaptation.feed import Feed, seed_of
from topwork.adaptation.plan import Plan
from topwork.adaptation.pretraining.masked_language import MaskedLanguage, Named
from topwork.adaptation.vocabulary import vocabulary_of
from topwork.data.split.kfold import folds
from topwork.errors import BadData, BadSetting
from topwork.evaluation.intervals import wilson
from topwork.evaluation.paired import compare_hits
from topwork.modalities.text import Tokens, buckets
from topwork.nn.threads import on_threads
from topwork.pretraining.encoder import Encoder, encoder, new_config
from topwork.pretraining.texts import TextMaterial, gather
from topwork.store.atomic import write_file
from topwork.store.runs import Run
from topwork.store.runs import check as check_run
from topwork.types import Choice, Watch

BATCH, GPU_BATCH = 32, 256  # windows
RATE, RATE_ON = 1e-3, 1e-4  # AdamW's peak, of a new encoder and of one that goes on
ASIDE, LEAST_ASIDE, MOST_ASIDE = 0.02, 64, 512  # share and number of windows that are not learnt from
AT_ONCE = 4096  # tokens per forward pass where it is asked


def pretrain(wish: pretraining.Wish, methods: Sequence[Method], watch: Watch) -> dict[str, Any]:
    """Train and write the encoder; returns its facts. The same command goes on where a killed one was."""
    began = time.monotonic()
    method = _one(methods)
    if not wish.start:
        new_config(wish.arch)  # what cannot be ends it here
    material = gather(wish.data)
    choices = _choices(wish)
    plan = Plan(
        steps=wish.steps or 1, batch=choices["batch size"].value, rate=choices["learning rate"].value,
        precision="no" if choices["device"].value == "cpu" else "bf16", device=choices["device"].value, seed=wish.seed,
        weight_decay=0.01,
    )  # fmt: skip
    asked = {
        "data": material.hash, "methods": list(wish.methods), "architecture": wish.arch, "tokens": wish.size_px,
        "start": wish.start, "probe": wish.probe, "steps": wish.steps, "time": wish.seconds, "seed": wish.seed,
        "batch": plan.batch, "rate": plan.rate, "device": plan.device,
    }  # fmt: skip
    folder = wish.out.absolute().with_name(f"{wish.out.name}.run")
    going_on = check_run(folder, asked)
    probe = _probe(wish.probe, material) if wish.probe else None
    for choice in choices.values():
        watch.say(str(choice))
    with Run(folder, asked, wish.save_seconds) as run:
        if going_on:
            watch.say(f"going on with the training in {folder}")
        network = encoder(wish.arch, wish.start, wish.size_px, material, folder / "tokenizer.json")
        tokens = material.tokens(network.reader, watch.progress)
        if material.skipped:
            first = material.skipped[0]
            watch.say(f"{len(material.skipped):,} skipped, e.g. {first.item}: {first.reason}")
        watch.say(f"{len(material):,} texts, {len(tokens.ids):,} tokens in {len(tokens.lengths):,} windows")
        feed, aside = _feed(tokens, network, wish.seed)
        if plan.batch > len(feed.chosen):  # type: ignore[arg-type]
            raise BadSetting(f"--batch-size {plan.batch} is more than the {len(feed.chosen):,} windows that there are")  # type: ignore[arg-type]
        left = None if wish.seconds is None else wish.seconds - (time.monotonic() - began)
        plan, threads = pretraining.decide(run, plan, network, [method], feed, left, watch)
        with on_threads(threads):
            model = loop.train(network.trunk(wish.seed), [method], feed, plan, run, watch)
            plan = dataclasses.replace(plan, parts=run.decided.get("parts", plan.parts))
            assert isinstance(model, Named)
            model.cpu()
            named = _named(model, method, tokens, aside, wish.seed)
            scores = named if probe is None else _probed(probe, model.trunk, network, wish.seed)
            watch.say(f"{scores['probe']}: {scores['trained']['accuracy']:.1%}")
        facts = {
            "name": wish.out.name,
            "method": {"spec": list(wish.methods), **dataclasses.asdict(dataclasses.replace(plan, device=""))},
            "trained_on": " + ".join(f"{part['name']} ({part['items']:,} texts)" for part in material.facts()),
            "architecture": network.call,
            "data": {"hash": material.hash, "items": len(material), "tokens": len(tokens.ids),
                     "sources": material.facts()},
            "start": dataclasses.asdict(network.start) if network.start else None,
            "seconds": round(run.elapsed(), 1),
            "machine": pretraining.machine(plan.device, threads),
            "seed": wish.seed,
            "losses": pretraining.mean_of_last(run.read_log()),
            "scores": scores,
            "hidden tokens": named,
            "source": "topwork pretrain",
            "code": code_version(),
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }  # fmt: skip
        network.write(wish.out, model.trunk, facts)
        write_file(wish.out / "log.jsonl", (folder / "log.jsonl").read_bytes())
        run.remove()
    return facts


@dataclasses.dataclass(frozen=True)
class _Kept(MaskedLanguage):
    """The same, with what names tokens left on: it is asked before it is thrown away."""

    def finish(self, model: nn.Module) -> nn.Module:
        return model


def _one(methods: Sequence[Method]) -> _Kept:
    if len(methods) != 1 or not isinstance(methods[0], MaskedLanguage):
        raise BadSetting("Texts are learnt from by one --method at a time: masked_language")
    return _Kept(**dataclasses.asdict(methods[0]))


def _choices(wish: pretraining.Wish) -> dict[str, Choice]:
    device = pretraining.device()
    usual = BATCH if device.value == "cpu" else GPU_BATCH
    why = "windows, good on a processor" if device.value == "cpu" else "windows, good on a GPU"
    batch = Choice("batch size", wish.batch, "as asked") if wish.batch else Choice("batch size", usual, why)
    rate = Choice("learning rate", wish.rate, "as asked")
    if wish.rate is None:
        why = "usual for an encoder that goes on" if wish.start else "usual for a new encoder"
        rate = Choice("learning rate", RATE_ON if wish.start else RATE, why)
    return {choice.name: choice for choice in (device, batch, rate)}


def _feed(tokens: Tokens, network: Encoder, seed: int) -> tuple[Feed, NDArray[np.int64]]:
    """Windows to learn from, and those kept aside."""
    W = len(tokens.lengths)
    order = np.random.Generator(np.random.Philox(key=seed_of(seed, "aside"))).permutation(W)
    few = min(LEAST_ASIDE, max(1, W // 10))
    aside = np.sort(order[: min(MOST_ASIDE, max(few, int(ASIDE * W)))])
    chosen = np.setdiff1d(np.arange(W), aside)
    if not len(chosen):
        raise BadData(f"{W} windows of text. Expected at least 2 to learn from")
    ids, weights = tokens.padded(np.zeros(2, np.int64))
    feed = Feed(
        _no_frames, np.full(W, -1, np.int64), 0, stored=lambda rows, _: tokens.padded(rows), width=1, chosen=chosen,
        modality="text", lengths=np.asarray(tokens.lengths), vocabulary=vocabulary_of(network.reader),
        example=(torch.from_numpy(ids), torch.from_numpy(weights)),
    )  # fmt: skip
    return feed, aside


@torch.no_grad()
def _named(model: Named, method: MaskedLanguage, tokens: Tokens, aside: NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Share of hidden tokens named rightly in windows that were not learnt from, beside the commonest token's."""
    model.eval()
    common = int(np.bincount(np.asarray(tokens.ids[:1_000_000])[_words(tokens.ids[:1_000_000], model)]).argmax())
    right, guessed = [np.zeros(0, bool)], [np.zeros(0, bool)]
    for number, batch in enumerate(buckets(tokens.lengths[aside], AT_ONCE)):
        ids, weights = (torch.from_numpy(x) for x in tokens.padded(aside[batch]))
        draw = torch.Generator().manual_seed(seed_of(seed, "asked", number))
        seen, hidden = model.hide(ids, weights, method.share, draw)
        truth = ids[hidden]
        right.append((model(seen, weights, hidden).argmax(1) == truth).numpy())
        guessed.append((truth == common).numpy())
    return _scores(
        f"hidden tokens of {len(aside):,} windows kept aside",
        {"trained": np.concatenate(right), "commonest token": np.concatenate(guessed)},
    )


def _words(ids: NDArray[np.int32], model: Named) -> NDArray[np.bool_]:
    return ~np.isin(ids, model.special.numpy())


def _probe(uri: str, material: TextMaterial) -> tuple[str, list[str], NDArray[np.int32]]:
    """Labelled texts that are not learnt from."""
    dataset = sources.read(uri)
    if dataset.modality != "text" or dataset.multilabel:
        raise BadSetting(f"--probe {uri}: expected texts with one label each")
    rows = np.flatnonzero(dataset.targets() >= 0)
    texts = [dataset.inputs()[row] for row in rows]
    targets = np.unique(dataset.targets()[rows], return_inverse=True)[1].astype(np.int32)
    if len(targets) < 10 or np.bincount(targets).min() < 2:
        raise BadData(f"--probe {uri}: expected at least ten texts, and two of every label")

    def key(text: str) -> bytes:
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    own = {key(text) for text in texts}
    if both := sum(key(text) in own for text in material):
        raise BadSetting(
            f"--probe {uri} shares {both:,} texts with what is learnt from, so it would flatter. Choose another"
        )
    return dataset.name, texts, targets


def _probed(
    probe: tuple[str, list[str], NDArray[np.int32]], trunk: nn.Module, network: Encoder, seed: int
) -> dict[str, Any]:
    """Accuracy of a cross-validated ridge probe on frozen features, after, before and at random."""
    name, texts, targets = probe
    sides = {"random": network.trunk(seed, begun=False), "trained": trunk}
    if network.state is not None:
        sides["start"] = network.trunk(seed)
    reader = dataclasses.replace(network.reader, longest=network.longest, most=16)
    tokens = reader.read(texts)
    of = folds(targets, None, 5, 0)
    right = {}
    for side, network_of in sides.items():
        x = _features(network_of.eval(), tokens, len(texts))
        solved = plugins.make("adaptation.probe", "ridge").solve(x, targets, of, int(targets.max()) + 1)
        right[side] = solved.held_out.argmax(1) == targets
    return _scores(f"ridge, 5-fold cross-validated, on {name}", right)


@torch.no_grad()
def _features(trunk: nn.Module, tokens: Tokens, texts: int) -> NDArray[np.float32]:
    """(N, D), means over the windows of every text."""
    parts: list[NDArray[np.float32]] = []
    at: list[NDArray[np.int64]] = []
    for batch in buckets(tokens.lengths, AT_ONCE):
        ids, weights = (torch.from_numpy(x) for x in tokens.padded(batch))
        parts.append(trunk(ids, weights).float().numpy())
        at.append(batch)
    found = np.concatenate(parts)
    sums = np.zeros((texts, found.shape[1]), np.float32)
    np.add.at(sums, tokens.owner[np.concatenate(at)], found)
    return sums / np.bincount(tokens.owner, minlength=texts)[:, None].astype(np.float32)


def _scores(what: str, right: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """Accuracies with intervals, and what the training gained."""
    told: dict[str, Any] = {"probe": what, "n": len(right["trained"])}
    for name, hits in right.items():
        low, high = wilson(int(hits.sum()), len(hits))
        told[name] = {"accuracy": float(hits.mean()), "low": float(low), "high": float(high)}
    for name in [name for name in right if name != "trained"]:
        told[f"gain over {name}"] = compare_hits(right[name], right["trained"]).over(name)
    return told


def _no_frames(*_: object) -> NDArray[np.uint8]:
    raise BadSetting("Texts have no frames")
