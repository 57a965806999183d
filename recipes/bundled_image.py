"""Train the bundled image backbone: a small student of labels and of a frozen teacher.

    L = a CE(h(z), y) + b KL(softmax(W f / t) || softmax(W g(z) / t)) t^2 + c |n(g(z)) - n(f)|^2 / D
        + d sum over two kinds of maps of mean |k(m) - n(M)|^2

z = student(augment(scene)) pooled features (B, 1024); f = teacher(scene) pooled features (B, D = 1280), computed once
for a fixed pool of K scenes per image and cached; g a linear projection into the teacher's space; W the teacher's own
frozen ImageNet classifier, read through g (no second head); n standardises over the pool; h a linear head on the 100
labels; t temperature; m the student's last maps and those of stride 16, M the teacher's at 5 x 5 places (of the last
ones 128 principal axes), k 1 x 1 convolutions. Half of the scenes are cut out of four photos side by side: at 64 px a
photo alone is blurred where it is enlarged, and targets later are not. After training only the student's moving average
is kept, and means over grids of its earlier stages are shown beside z (`bundled_image_export.GRIDS`; D = 1,856).

Hinton et al., Distilling the Knowledge in a Neural Network, 2015 (the KL). Romero et al., FitNets, ICLR 2015 (features
and maps through a projection). Chen et al., Knowledge Distillation with the Reused Teacher Classifier, CVPR 2022 (W).
Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022: teacher and student see the
same crop. Evci et al., Head2Toe, ICML 2022 (earlier stages). We differ from Beyer: photometric changes (jitter, grey,
blur or sharpening, 8 to 32 px, inversion) reach the student only, as the teacher's features are cached. Howard et al.,
Searching for MobileNetV3, ICCV 2019 (the student).

Data: 30,000 photos of 100 classes at 64 px (300 a class of Tiny ImageNet); teacher mobilenetv2_100, see its card.
The shipped weights of November 2026, seed 0, were made in three goes: the first (`git show 0f52587:recipes/`) knew only
single crops and pooled features, 8,483 steps of 128 in 3,360 s after 280 s for the teacher; this one went on from its
weights (--start), 9,704 steps in 5,700 s after 560 s, then, its end put off (--minutes), 8,225 more in 6,240 s: one to
two points on every set but sign language. Stopped and resumed three times. Two cores (EPYC) shared with
other work, which took about half of them: alone it makes 390 images/s at 128 px, here it made 218. One seed: the spread
over trainings is not measured. What it is worth: benchmarks/bundled_image.py, and the scores in the card. Of all sets
only PACS and the training parts of hymenoptera and cats_dogs_small were looked at while it was built; the teacher may
know hymenoptera, which comes from ImageNet.

    python recipes/bundled_image.py --data .../pretrain_images --teacher .../mobilenetv2_100 --minutes 95 --out FOLDER

What did not work (2026-11-21): two intra-op threads, 65 images/s beside a busy neighbour where one thread per worker
gives 340, and in the main thread alone (optimizer, clipping) still a fall to 80; bfloat16 (457 images/s against 939 in
float32 at 96 px); an unoptimised ONNX export with the exporter's zero biases left in, which is 3 to 5 times slower
because BatchNorm no longer folds; ResNets of the same cost in training (resnet10t at 96 px) run 3 to 4 times slower.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import timm
import torch
import torch.nn.functional as F
from bundled_image_export import export, write_atomically, write_json
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

STUDENT = "mobilenetv3_small_100"


@dataclass(frozen=True)
class Config:
    """Everything that shapes the result; written into the card."""

    views: int = 6  # K scenes per image in the pool; each costs one teacher pass
    crop_area: tuple[float, float] = (0.25, 1.0)  # share of the canvas that a crop covers
    mosaics: float = 0.5  # share of scenes that are cut out of four photos side by side: sharp where one is blurred
    teacher_px: int = 160
    cells: int = 5  # a side of the teacher's last maps at 160 px; earlier ones are averaged to as many
    axes: int = 128  # principal axes that are kept of the 1,280 channels of the last maps
    early_px: tuple[int, ...] = (64, 80, 96, 96)  # one size is drawn per batch; small is cheap
    late_px: tuple[int, ...] = (96, 112, 128, 128)
    early: float = 0.55  # share of the training that uses early_px
    batch: int = 128
    rate: float = 1.2e-3  # AdamW peak
    weight_decay: float = 0.03
    warmup: float = 0.03  # share of the training
    ema: float = 0.999
    label_weight: float = 0.5  # a
    kl_weight: float = 0.5  # b
    feature_weight: float = 2.0  # c
    map_weight: float = 1.0  # d, for each of the two kinds of maps
    temperature: float = 2.0
    seed: int = 0


def decode(data: Path, work: Path) -> tuple[Tensor, Tensor]:
    """Decode every image once: uint8 (N, 64, 64, 3) and labels (N,)."""
    files = sorted((data / "train").glob("*/*.JPEG"))
    names = sorted({f.parent.name for f in files})
    cached = work / "images.npy"
    if not cached.exists():
        with ThreadPoolExecutor() as pool:
            pixels = np.stack(list(pool.map(lambda f: np.asarray(Image.open(f).convert("RGB")), files)))
        write_atomically(cached, lambda p: np.save(p.open("wb"), pixels))
    labels = torch.tensor([names.index(f.parent.name) for f in files])
    return torch.from_numpy(np.load(cached)), labels


def pool_of_scenes(n_images: int, config: Config) -> tuple[Tensor, Tensor]:
    """N K scenes: boxes (N K, 4) as centre x, y and half width, height in the [-1, 1] coordinates of grid_sample, and
    the photos of their canvases (N K, 4); a canvas of one photo names it and three times -1.
    """
    g = torch.Generator().manual_seed(config.seed)
    low, high = config.crop_area
    n = n_images * config.views
    u = torch.rand(n, 4, generator=g)
    area = low + (high - low) * u[:, 0]
    ratio = ((2 * u[:, 1] - 1) * math.log(4 / 3)).exp()  # width / height between 3/4 and 4/3, as usual
    half = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1.0)
    centre = (2 * u[:, 2:] - 1) * (1 - half)
    photos = torch.randint(n_images, (n, 4), generator=g)
    photos[:, 0] = torch.arange(n) // config.views
    photos[torch.rand(n, generator=g) >= config.mosaics, 1:] = -1
    return torch.cat([centre, half], 1), photos


def draw(pixels: Tensor, boxes: Tensor, photos: Tensor, size_px: int) -> Tensor:
    """Scenes (B, 3, S, S) in 0..1 out of uint8 photos (N, 64, 64, 3); negative half widths flip."""
    images = torch.empty(len(boxes), 3, size_px, size_px)
    single = photos[:, 1] < 0
    images[single] = crop(pixels[photos[single, 0]], boxes[single], size_px)
    four = pixels[photos[~single]]  # (B, 4, 64, 64, 3)
    canvas = torch.cat([torch.cat([four[:, 0], four[:, 1]], 2), torch.cat([four[:, 2], four[:, 3]], 2)], 1)
    images[~single] = crop(canvas, boxes[~single], size_px)
    return images


def crop(canvas: Tensor, boxes: Tensor, size_px: int) -> Tensor:
    """Cut `boxes` out of uint8 (B, H, H, 3), scale to (B, 3, S, S) in 0..1."""
    B = len(canvas)
    theta = torch.zeros(B, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1], theta[:, :, 2] = boxes[:, 2], boxes[:, 3], boxes[:, :2]
    grid = F.affine_grid(theta, [B, 3, size_px, size_px], align_corners=False)
    images = canvas.permute(0, 3, 1, 2).float().div_(255)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def load_teacher(folder: Path) -> nn.Module:
    """The teacher of `folder`, as its card says; pad_type='same' matters."""
    teacher = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same")
    teacher.load_state_dict(load_file(folder / "model.safetensors"))
    return teacher.eval()


class Maps(nn.Module):
    """What is asked of the teacher: pooled features (B, D), last maps, and those of stride 16 averaged to g x g."""

    def __init__(self, teacher: nn.Module, cells: int) -> None:
        """The teacher's trunk, `cells` a side."""
        super().__init__()
        self.teacher, self.cells = teacher, cells

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, S, S) -> (B, D), (B, D, g, g), (B, 96, g, g)."""
        last, stages = self.teacher.forward_intermediates(images, indices=[3])
        middle = F.avg_pool2d(stages[0], stages[0].shape[-1] // self.cells)
        return last.mean((2, 3)), last, middle


def ask_teacher(teacher: nn.Module, pixels: Tensor, scenes: tuple[Tensor, Tensor], work: Path, config: Config) -> dict:
    """Pooled features and maps of every scene, float16, through onnxruntime; goes on where it was interrupted.

    The last maps are kept along the principal axes of their own second moments (M, axes), found on the first scenes.
    """
    boxes, photos = scenes
    M, px, g = len(boxes), config.teacher_px, config.cells
    progress, graph = work / "teacher.json", work / "teacher.onnx"
    done = json.loads(progress.read_text())["done"] if progress.exists() else 0
    shapes = {"pooled": (M, teacher.num_features), "last": (M, config.axes, g, g), "middle": (M, 96, g, g)}
    kept = {k: np.lib.format.open_memmap(work / f"{k}.npy", "r+" if done else "w+", dtype=np.float16, shape=shape)
            for k, shape in shapes.items()}  # fmt: skip
    if done == M:
        return kept
    torch.onnx.export(Maps(teacher, g).eval(), (torch.zeros(2, 3, px, px),), graph, dynamo=True,
                      input_names=["images"], dynamic_shapes=({0: "N"},), verbose=False)  # fmt: skip
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options)

    def ask(begin: int) -> tuple[int, list[np.ndarray]]:
        rows = slice(begin, min(begin + 50, M))
        return begin, session.run(None, {"images": (draw(pixels, boxes[rows], photos[rows], px) * 2 - 1).numpy()})

    with ThreadPoolExecutor(os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        axes_file = work / "axes.npy"
        if not axes_file.exists():
            x = np.concatenate([last.transpose(0, 2, 3, 1) for _, (_, last, _) in pool.map(ask, range(0, 2000, 50))])
            x = x.reshape(-1, x.shape[-1]).astype(np.float64)
            axes = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, : config.axes].astype(np.float32)
            print(f"{config.axes} axes hold {((x @ axes) ** 2).sum() / (x**2).sum():.3f}", flush=True)
            write_atomically(axes_file, lambda p: np.save(p.open("wb"), axes))
        axes, start, first, chunk = np.load(axes_file), time.time(), done, 2000
        for begin in range(done, M, chunk):
            for at, (pooled, last, middle) in pool.map(ask, range(begin, min(begin + chunk, M), 50)):
                rows = slice(at, at + len(pooled))
                kept["pooled"][rows], kept["middle"][rows] = pooled, middle
                kept["last"][rows] = np.einsum("bdhw,dk->bkhw", last, axes, optimize=True)
            done = min(begin + chunk, M)
            for array in kept.values():
                array.flush()
            write_json(progress, {"done": done})
            rate_hz = (done - first) / (time.time() - start)
            print(f"teacher {done}/{M}, {rate_hz:.0f} scenes/s, {(M - done) / rate_hz:.0f} s left", flush=True)
    return kept


def augment(x: Tensor, g: torch.Generator) -> Tensor:
    """Photometric changes of a batch (B, 3, S, S) in 0..1; each image draws its own.

    Brightness, tint, contrast, saturation and inversion are affine in the pixel, so they are one product M x + b:
    M = (s I + (1 - s) 1 l^T) c diag(a),  b = (1 - c) mean(a x),  inverted: -M, 1 - b   (l: weights of luma).
    """
    B, _, S, _ = x.shape

    def pick(low: float, high: float, share: float, neutral: float, *shape: int) -> Tensor:
        value = low + (high - low) * torch.rand(B, *shape, generator=g)
        return torch.where(torch.rand(B, *(1 for _ in shape), generator=g) < share, value, neutral)

    small, n = int(torch.randint(8, 33, (1,), generator=g)), B // 12  # the batch is in random order: a slice will do
    tiny = F.interpolate(x[:n], size=(small, small), mode="area")
    x[:n] = F.interpolate(tiny, size=(S, S), mode="bilinear")
    sharpen = pick(-0.8, 2.0, 0.5, 0.0, 1, 1, 1)  # below 0 blurs; photos scaled down are sharper than 64 px scaled up
    x = x + sharpen * (x - F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))

    a = pick(0.6, 1.4, 0.8, 1.0, 1) * pick(0.9, 1.1, 1.0, 1.0, 3)  # (B, 3)
    c = pick(0.6, 1.6, 0.8, 1.0, 1)
    s = pick(0.5, 1.5, 0.8, 1.0, 1) * (torch.rand(B, 1, generator=g) > 0.15)  # 15 % lose all colour
    luma = torch.tensor([0.299, 0.587, 0.114])
    M = (s[:, :, None] * torch.eye(3) + (1 - s[:, :, None]) * luma) * (c * a)[:, None, :]  # (B, 3, 3)
    b = (1 - c) * (a * x.mean((2, 3))).mean(1, keepdim=True)  # (B, 1)
    inverted = torch.rand(B, 1, generator=g) < 0.06
    M, b = torch.where(inverted[:, :, None], -M, M), torch.where(inverted, 1 - b, b)
    return torch.baddbmm(b[:, :, None], M, x.flatten(2)).view_as(x).clamp_(0, 1)


class Distilled(nn.Module):
    """The student with its training-time heads."""

    def __init__(self, n_labels: int, n_teacher: int, n_last: int, n_middle: int, cells: int) -> None:
        """Heads for `n_labels` classes, `n_teacher` features and two kinds of maps of `cells` a side."""
        super().__init__()
        self.student = timm.create_model(STUDENT, pretrained=False, num_classes=0)
        D, self.cells = self.student.head_hidden_size, cells
        channels = [info["num_chs"] for info in self.student.feature_info]
        self.labels, self.project = nn.Linear(D, n_labels), nn.Linear(D, n_teacher)
        self.last, self.middle = nn.Conv2d(channels[-1], n_last, 1), nn.Conv2d(channels[-2], n_middle, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits (B, C), the projection into the teacher's space (B, D), last and middle maps (B, ., g, g)."""
        last, (middle,) = self.student.forward_intermediates(images, indices=[3])
        z = self.student.forward_head(last, pre_logits=True)
        return self.labels(z), self.project(z), self.scale(self.last(last)), self.scale(self.middle(middle))

    def scale(self, maps: Tensor) -> Tensor:
        """To g x g cells."""
        if maps.shape[-1] > self.cells:
            return F.adaptive_avg_pool2d(maps, self.cells)
        return F.interpolate(maps, size=(self.cells, self.cells), mode="bilinear", align_corners=False)


def train(args: argparse.Namespace, config: Config) -> tuple[nn.Module, dict]:
    """Train for `args.minutes` of training time (or `args.steps`), resuming from the last checkpoint."""
    torch.manual_seed(config.seed)
    torch.set_num_threads(1)  # the main thread's, too: two of them that meet in every layer wait for each other
    pixels, labels = decode(args.data, args.work)
    (boxes, photos), teacher = pool_of_scenes(len(pixels), config), load_teacher(args.teacher)
    targets = ask_teacher(teacher, pixels, (boxes, photos), args.work, config)
    sample = torch.from_numpy(targets["pooled"][:20000].astype(np.float32))
    mean, std = sample.mean(0), sample.std(0) + 1e-2  # a floor: features that are almost always 0 must not dominate
    centre, spread = {}, {}
    for kind in ("last", "middle"):
        sample = torch.from_numpy(targets[kind][:4000].astype(np.float32))
        centre[kind] = sample.mean((0, 2, 3))[:, None, None]
        # whitened channels would weigh the last axis like the first: the square root lies between
        deviation = sample.std((0, 2, 3))
        spread[kind] = ((deviation * deviation.square().mean().sqrt()).sqrt() + 1e-3)[:, None, None]
    W, bias = teacher.classifier.weight.detach(), teacher.classifier.bias.detach()

    model = Distilled(int(labels.max()) + 1, len(mean), config.axes, 96, config.cells)
    if args.start:
        model.student.load_state_dict({k: v.float() for k, v in load_file(args.start).items()}, strict=False)
    model = model.to(memory_format=torch.channels_last)
    twins = [model, *(copy.deepcopy(model) for _ in range(args.workers - 1))]
    workers = ThreadPoolExecutor(args.workers, initializer=torch.set_num_threads, initargs=(1,))
    average = {k: v.detach().clone() for k, v in model.student.state_dict().items() if v.is_floating_point()}
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    parts = [{"params": decay, "weight_decay": config.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(parts, lr=config.rate, betas=(0.9, 0.99))
    state = {"step": 0, "seconds": 0.0}
    weights, facts = args.work / "checkpoint.safetensors", args.work / "checkpoint.json"
    if facts.exists():
        state = json.loads(facts.read_text())
        restore(load_file(weights), model, average, optimizer)
        for twin in twins[1:]:
            twin.load_state_dict(model.state_dict())
        print(f"resumed at step {state['step']}, {state['seconds']:.0f} s", flush=True)

    K, budget, shown, n_scenes, order = config.views, args.minutes * 60, {}, len(boxes), None
    per_epoch, before, saved = n_scenes // config.batch, time.time(), time.time()
    while (done := state["step"] / args.steps if args.steps else state["seconds"] / budget) < 1:
        step = state["step"]
        g = torch.Generator().manual_seed(config.seed * 1_000_003 + step)  # a step's randomness needs no stored state
        epoch, at = divmod(step, per_epoch)
        if at == 0 or order is None:
            order = torch.randperm(n_scenes, generator=torch.Generator().manual_seed(config.seed + epoch))
        rows = order[at * config.batch : (at + 1) * config.batch].sort().values
        rows = rows[torch.randperm(len(rows), generator=g)]
        sizes = config.early_px if done < config.early else config.late_px
        size_px = sizes[int(torch.randint(len(sizes), (1,), generator=g))]
        rate = config.rate * min(1.0, done / config.warmup) * (0.5 + 0.5 * math.cos(math.pi * done))
        for part in optimizer.param_groups:
            part["lr"] = max(rate, 1e-6)

        def share(i: int, rows: Tensor = rows, step: int = step, size_px: int = size_px) -> dict[str, Tensor]:
            g = torch.Generator().manual_seed((config.seed * 1_000_003 + step) * 64 + i + 1)
            rows = rows.chunk(len(twins))[i]
            box, single = boxes[rows].clone(), (photos[rows, 1] < 0).float()
            flipped = torch.rand(len(rows), generator=g) < 0.5
            box[:, 2] *= torch.where(flipped, -1.0, 1.0)
            images = augment(draw(pixels, box, photos[rows], size_px), g) * 2 - 1
            f = torch.from_numpy(targets["pooled"][rows.numpy()].astype(np.float32))
            maps = {}
            for kind in ("last", "middle"):
                m = torch.from_numpy(targets[kind][rows.numpy()].astype(np.float32))
                maps[kind] = (torch.where(flipped[:, None, None, None], m.flip(3), m) - centre[kind]) / spread[kind]
            for p in twins[i].parameters():
                p.grad = None
            logits, projected, last_maps, middle_maps = twins[i](images.contiguous(memory_format=torch.channels_last))
            t, y = config.temperature, labels[rows // K]
            ours = F.log_softmax(F.linear(projected * std + mean, W, bias) / t, 1)
            theirs = F.log_softmax(F.linear(f, W, bias) / t, 1)
            kl = F.kl_div(ours, theirs, reduction="batchmean", log_target=True) * t * t
            terms = {
                "label": (F.cross_entropy(logits, y, label_smoothing=0.1, reduction="none") * single).mean()
                * config.label_weight,
                "kl": kl * config.kl_weight,
                "feature": F.mse_loss(projected, (f - mean) / std) * config.feature_weight,
                "last": F.mse_loss(last_maps, maps["last"]) * config.map_weight,
                "middle": F.mse_loss(middle_maps, maps["middle"]) * config.map_weight,
            }
            (sum(terms.values()) / len(twins)).backward()
            terms["top1"] = ((logits.argmax(1) == y) * single).sum() / single.sum().clamp(min=1) * 100
            return {k: v.detach() for k, v in terms.items()}

        # Each worker takes its share alone on one thread and they meet once a step: with a meeting inside every layer
        # (intra-op threads) a neighbour on the same cores slows the training down many times.
        terms = list(workers.map(share, range(len(twins))))
        for twin in twins[1:]:
            torch._foreach_add_([p.grad for p in model.parameters()], [p.grad for p in twin.parameters()])
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        for twin in twins[1:]:
            torch._foreach_copy_([p.data for p in twin.parameters()], [p.data for p in model.parameters()])
        keep = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            latest = model.student.state_dict()
            names = list(average)
            torch._foreach_lerp_([average[k] for k in names], [latest[k] for k in names], 1 - keep)

        values = {k: float(torch.stack([t[k] for t in terms]).mean()) for k in terms[0]}
        shown = {k: 0.98 * shown.get(k, v) + 0.02 * v for k, v in values.items()}
        now = time.time()
        state["step"], state["seconds"], before = step + 1, state["seconds"] + now - before, now
        if step % 100 == 0:
            left = state["seconds"] * (1 - done) / done if done else float("nan")
            speed = config.batch * state["step"] / state["seconds"]
            losses = " ".join(f"{k} {v:.3f}" for k, v in shown.items())
            epochs = step * config.batch / n_scenes * K
            print(f"step {step} epoch {epochs:.1f} {speed:.0f}/s {losses} {left / 60:.1f} min left", flush=True)
        if time.time() - saved > 120:
            checkpoint(weights, facts, model, average, optimizer, state)
            saved = time.time()
    checkpoint(weights, facts, model, average, optimizer, state)
    student = timm.create_model(STUDENT, pretrained=False, num_classes=0)
    student.load_state_dict({k: v.contiguous() for k, v in average.items()}, strict=True)
    return student.eval(), state


def checkpoint(
    weights: Path, facts: Path, model: nn.Module, average: dict, optimizer: torch.optim.Optimizer, state: dict
) -> None:
    """Save weights, moving average and optimizer state; the JSON is written last and names the step."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()} | {f"ema.{k}": v for k, v in average.items()}
    for i, slots in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in slots.items()}
    tensors = {k: v.detach().clone(memory_format=torch.contiguous_format) for k, v in tensors.items()}
    write_atomically(weights, lambda p: save_file(tensors, p, metadata={"step": str(state["step"])}))
    write_json(facts, state)


def restore(tensors: dict[str, Tensor], model: nn.Module, average: dict, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint back in place."""
    model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    average |= {k[4:]: v for k, v in tensors.items() if k.startswith("ema.")}
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            slots.setdefault(int(i), {})[key] = value
    optimizer.load_state_dict({"state": slots, "param_groups": optimizer.state_dict()["param_groups"]})


def main() -> None:
    """Train and export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with train/WNID/*.JPEG")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of mobilenetv2_100")
    parser.add_argument("--out", type=Path, required=True, help="the backbone's folder")
    parser.add_argument("--work", type=Path, default=Path("/tmp/bundled_image"), help="caches and checkpoints")
    parser.add_argument("--minutes", type=float, default=60, help="time spent in training steps")
    parser.add_argument("--steps", type=int, default=0, help="steps instead of minutes, to repeat a run exactly")
    parser.add_argument("--start", type=Path, help="weights of an earlier training to go on from")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="threads that share each batch")
    parser.add_argument("--input-px", type=int, default=128, help="input size of the exported backbone")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    config = Config()
    student, state = train(args, config)
    export(student, STUDENT, args.input_px, args.out, {
        "method": {"recipe": "recipes/bundled_image.py", **asdict(config), "steps": state["step"]},
        "seconds": round(state["seconds"]),
        "machine": f"{os.cpu_count()} CPU cores",
        "licence": "Apache-2.0 (weights; the photos' own terms are ImageNet's: research and education)",
        "source": "trained by recipes/bundled_image.py of this repository",
        "scores": {},
    })  # fmt: skip


if __name__ == "__main__":
    main()
