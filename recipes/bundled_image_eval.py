"""Probe frozen image features: 10 labels a class and all labels, on sets no backbone here was trained on by us.

Features are standardised by the training part, a logistic regression is fitted with C from 1e-4..10 by 3-fold
cross-validation on the training part, accuracy is measured on the test part. "10 labels" is the mean over 5 draws with
its 95 % t-interval over draws; "all" has the 95 % Wilson interval of the test part. Sets with a test folder keep it,
the others are cut 80/20 (stratified, seed 0); ORL takes 5 faces a person, redrawn 5 times, and tests on the other 5.

    python recipes/bundled_image_eval.py --data DATA --teacher .../mobilenetv2_100 --backbone FOLDER --out scores.json
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from PIL import Image
from scipy import stats
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, train_test_split

Set = tuple[list[Image.Image], np.ndarray, np.ndarray]  # images, labels (N,), is_test (N,)
Extract = Callable[[list[Image.Image]], np.ndarray]
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
SUFFIXES = {".jpg", ".jpeg", ".png", ".pgm"}


def read_folder(root: Path, test: Path | None = None) -> Set:
    """Images of a folder per class; `test` is the folder of the test part, or None to cut 80/20."""
    files = [(f, 0) for f in sorted(root.glob("*/*")) if f.suffix.lower() in SUFFIXES]
    files += [(f, 1) for f in sorted(test.glob("*/*")) if f.suffix.lower() in SUFFIXES] if test else []
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(read_image, [f for f, _ in files]))
    names = sorted({f.parent.name for f, _ in files})
    labels = np.array([names.index(f.parent.name) for f, _ in files])
    is_test = np.array([t for _, t in files], bool)
    if test is None:
        is_test[train_test_split(np.arange(len(files)), test_size=0.2, stratify=labels, random_state=0)[1]] = True
    return images, labels, is_test


def read_image(path: Path) -> Image.Image:
    """Decode to RGB; anything huge is first brought to 400 px."""
    image = Image.open(path).convert("RGB")
    image.thumbnail((512, 512), Image.Resampling.LANCZOS)
    return image


def digits() -> Set:
    """scikit-learn's 8x8 digits as RGB images."""
    pixels, labels = load_digits(return_X_y=True)
    grey = np.minimum(pixels * 16, 255).astype(np.uint8).reshape(-1, 8, 8)
    is_test = np.zeros(len(labels), bool)
    is_test[train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)[1]] = True
    return [Image.fromarray(g).convert("RGB") for g in grey], labels, is_test


def sets(data: Path) -> Iterator[tuple[str, Set]]:
    """The evaluation sets, one in memory at a time."""
    yield "hymenoptera", read_folder(data / "hymenoptera/train", data / "hymenoptera/val")
    yield "cats_dogs_small", read_folder(data / "cats_dogs_small/train", data / "cats_dogs_small/test")
    yield "flowers5_small", read_folder(data / "flowers5_small/flowers")
    yield "trashnet_small", read_folder(data / "trashnet_small/dataset-resized")
    yield "sign_language_digits", read_folder(data / "sign_language_digits/Dataset")
    yield "orl_faces", read_folder(data / "orl_faces/orl_faces")
    yield "digits_8x8", digits()


def to_array(image: Image.Image, short_px: int, size_px: int) -> np.ndarray:
    """Resize the short side (bilinear, antialiased), cut the centre, (3, S, S) in -1..1."""
    scale = short_px / min(image.size)
    width, height = (max(short_px, round(side * scale)) for side in image.size)
    left, top = (width - size_px) // 2, (height - size_px) // 2
    image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size_px, top + size_px))
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 127.5 - 1


def onnx_features(model: Path | bytes, short_px: int, size_px: int, mean: float = 0.5, std: float = 0.5) -> Extract:
    """Features through onnxruntime."""
    session = ort.InferenceSession(model)
    name = session.get_inputs()[0].name

    def extract(images: list[Image.Image]) -> np.ndarray:
        parts = []
        for i in range(0, len(images), 32):
            x = np.stack([to_array(image, short_px, size_px) for image in images[i : i + 32]])
            parts.append(session.run(None, {name: ((x * 0.5 + 0.5 - mean) / std).astype(np.float32)})[0])
        return np.concatenate(parts)

    return extract


def raw_pixels(images: list[Image.Image]) -> np.ndarray:
    """16x16 RGB, flattened."""
    return np.stack([to_array(image, 16, 16).ravel() for image in images])


def fit_score(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> float:
    """Accuracy of the cross-validated probe."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    x, x_test = (x - mean) / std, (x_test - mean) / std
    if len(x) < x.shape[1]:  # an L2-penalised solution lies in the span of the rows: solve there, it is smaller
        basis = np.linalg.svd(x, full_matrices=False)[2]
        x, x_test = x @ basis.T, x_test @ basis.T
    folds = list(StratifiedKFold(3, shuffle=True, random_state=0).split(x, y))
    accuracy = []
    for C in STRENGTHS:
        model = LogisticRegression(C=C, max_iter=100, tol=1e-3)
        accuracy.append(np.mean([model.fit(x[a], y[a]).score(x[b], y[b]) for a, b in folds]))
    best = STRENGTHS[int(np.argmax(accuracy))]
    return float(LogisticRegression(C=best, max_iter=1000).fit(x, y).score(x_test, y_test))


def draws(labels: np.ndarray, pool: np.ndarray, per_class: int, seed: int) -> np.ndarray:
    """Indices of `per_class` items of each class out of `pool`."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.permutation(pool[labels[pool] == c])[:per_class] for c in np.unique(labels)])


def probe(features: np.ndarray, labels: np.ndarray, is_test: np.ndarray, faces: bool) -> dict:
    """Both probes, in percent: {"10 labels": [mean, low, high], "all": [accuracy, low, high]}."""
    everything, few, n_seeds = np.arange(len(labels)), [], 5
    for seed in range(n_seeds):
        rows = draws(labels, everything if faces else everything[~is_test], 5 if faces else 10, seed)
        test = np.setdiff1d(everything, rows) if faces else everything[is_test]
        few.append(100 * fit_score(features[rows], labels[rows], features[test], labels[test]))
    half = stats.t.ppf(0.975, n_seeds - 1) * np.std(few, ddof=1) / np.sqrt(n_seeds)
    mean = float(np.mean(few))
    bounds = (mean, mean - half, min(100, mean + half))
    found = {"5 labels" if faces else "10 labels": [round(float(v), 1) for v in bounds]}
    if not faces:
        accuracy = fit_score(features[~is_test], labels[~is_test], features[is_test], labels[is_test])
        n = int(is_test.sum())
        interval = stats.binomtest(round(accuracy * n), n).proportion_ci(method="wilson")
        found["all"] = [round(100 * float(v), 1) for v in (accuracy, interval.low, interval.high)]
    return found


def table(data: Path, extractors: dict[str, Extract], out: Path) -> dict[str, dict[str, dict]]:
    """Scores by backbone and set; what `out` already holds is kept, so an interrupted run goes on."""
    warnings.filterwarnings("ignore", message="lbfgs failed")
    scores = json.loads(out.read_text()) if out.exists() else {}
    for set_name, (images, labels, is_test) in sets(data):
        for name, extract in extractors.items():
            if set_name in scores.setdefault(name, {}):
                continue
            start = time.time()
            scores[name][set_name] = probe(extract(images), labels, is_test, set_name == "orl_faces")
            out.write_text(json.dumps(scores, indent=1))
            print(f"{set_name:22}{name:24}{scores[name][set_name]}  {time.time() - start:.1f} s", flush=True)
    return scores


def timm_graph(model: object, size_px: int, path: Path) -> Path:
    """Export a timm model without classifier, for the rows that have no graph of their own."""
    import torch

    torch.onnx.export(model.eval(), (torch.zeros(2, 3, size_px, size_px),), path, dynamo=True,
                      input_names=["images"], dynamic_shapes=({0: "N"},), verbose=False)  # fmt: skip
    return path


def cost_ratio(small: Path, small_px: int, large: Path, large_px: int, batch: int, rounds: int = 15) -> float:
    """How many times cheaper `small` is, per image; rounds alternate, the medians are compared."""
    runs = []
    for path, px in ((small, small_px), (large, large_px)):
        session = ort.InferenceSession(path)
        runs.append((session, {session.get_inputs()[0].name: np.random.rand(batch, 3, px, px).astype(np.float32)}))
    seconds: list[list[float]] = [[], []]
    for _ in range(rounds):
        for i, (session, feed) in enumerate(runs):
            start = time.perf_counter()
            session.run(None, feed)
            seconds[i].append(time.perf_counter() - start)
    return float(np.median(seconds[1]) / np.median(seconds[0]))


def main() -> None:
    """Print and save the table."""
    import timm
    import torch
    from safetensors.torch import load_file

    from topwork.backbones.trunk import TimmTrunk

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with hymenoptera, flowers5_small, ...")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of mobilenetv2_100")
    parser.add_argument("--backbone", type=Path, required=True, help="folder of the bundled backbone")
    parser.add_argument("--out", type=Path, required=True, help="scores as JSON")
    parser.add_argument("--work", type=Path, default=Path("/tmp/bundled_image"), help="temporary graphs")
    parser.add_argument("--only", nargs="*", help="rows to compute")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    card = json.loads((args.backbone / "card.json").read_text())
    px, short = card["input_size"][1], card["resize_short_side"]

    torch.manual_seed(0)
    name = card["architecture"].split("'")[1]
    grids = {int(stage): cells for stage, cells in card.get("grids", {}).items()}
    untrained = timm_graph(TimmTrunk(timm.create_model(name), grids), px, args.work / "untrained.onnx")
    teacher = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same")
    teacher.load_state_dict(load_file(args.teacher / "model.safetensors"))
    teacher.classifier = torch.nn.Identity()
    large = timm_graph(teacher, 224, args.work / "teacher_224.onnx")
    same_cost = timm_graph(teacher, 64, args.work / "teacher_64.onnx")
    rows = {
        "topwork-image-small": onnx_features(args.backbone / "model.onnx", short, px),
        "untrained": onnx_features(untrained, short, px),
        "raw 16x16 pixels": raw_pixels,
        "mobilenetv2_100 at 224": onnx_features(large, 256, 224),
        "mobilenetv2_100 at 64": onnx_features(same_cost, 64, 64),
    }
    if args.only:
        rows = {name: extract for name, extract in rows.items() if name in args.only}
    table(args.data, rows, args.out)
    for batch in (1, 16):
        ratio = cost_ratio(args.backbone / "model.onnx", px, large, 224, batch)
        print(f"batch {batch}: {ratio:.1f} times cheaper than mobilenetv2_100 at 224 px")


if __name__ == "__main__":
    main()
