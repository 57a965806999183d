"""Pictures drawn from formulas: labelled fractals, to pretrain without any data.

    fractals:                                            a million pictures of 1,000 classes
    fractals:classes=100,per_class=50,colour=true        options, all below
    fractals:one=0.1                                     one fractal; classes differ by less than 0.1 in its numbers

A class is an iterated function system (nn/ifs.py) that fills enough of its picture. An instance is drawn by the chaos
game after its numbers were changed a little, turned, mirrored, sized and placed at random; several fractals of the
class may stand in one picture, each over what is behind it; the colour of a point tells which map led to it:

    picture <- (1 - o) picture + o palette[map]      o = 1 - exp(-1.5 n / mean n of the pixels hit), n points in a pixel

Backgrounds are smooth noise of falling amplitude (4, 8, 16 cells a side) around one colour. `frames(dataset, rows,
side_px)` draws; a picture depends on the source's options, its name, its side and the seed only.

Kataoka et al., Pre-training without Natural Images, ACCV 2020, IJCV 2022 (classes, filling rate, instances). Anderson &
Farrell, WACV 2022 (systems from singular values, colours, backgrounds). Nakamura et al., Scaling Backwards, ECCV 2024
(`one`: numbers w + e, e uniform in -one/2..one/2; theirs has one picture a class). Ours: palettes by the last map,
noise instead of midpoint displacement, single points instead of 3 x 3 patches, several fractals of one class.
"""

from __future__ import annotations

import ast
import dataclasses
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from topwork import settings
from topwork.errors import BadData, BadSetting
from topwork.types import Dataset, digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from topwork.nn.ifs import Systems

SCHEME = "fractals:"
MOST = 10_000_000  # pictures
TRIES = 200  # systems that are looked at for one class
LOOK_PX, LOOK_POINTS, LOOK_AT_ONCE = 32, 4096, 32  # the look that measures how much a system fills
STEPS = 64  # of a walk; more points are more walkers
CHUNK_PIXELS = 16 * 64**2  # of pictures that are drawn in lockstep: little memory, few calls
CELLS = (4, 8, 16)  # of the background's noise


@dataclass(frozen=True)
class Fractals:
    """Labelled pictures of iterated function systems."""

    classes: int = 1000
    per_class: int = 1000
    colour: bool = False  # false: white on black, which taught more in short trainings (benchmarks/fractals.py)
    background: bool = True  # smooth noise behind, where there is colour
    several: int = 1  # most fractals in one picture; the time of a picture grows with half of it
    maps: int = 8  # most maps of a system; the fewest are 2
    coverage: float = 0.2  # least share of a system's square that it fills
    vary: float = 0.1  # largest relative change of a class's numbers from instance to instance
    turn: float = 20.0  # largest turn to either side, degrees
    one: float = 0.0  # above 0: all classes are one system changed by at most half of this; `vary` is then 0
    seed: int = 0  # which systems

    def accepts(self, uri: str) -> bool:
        """Whether it begins with fractals:."""
        return uri.startswith(SCHEME)

    def read(self, uri: str) -> Dataset:
        """Names and classes of all pictures; none is drawn yet."""
        import numpy as np
        import pyarrow as pa

        from topwork.sources import SPLITS

        source = self.given(uri)
        labels, count = source.labels(), source.classes * source.per_class
        numbers = [f"/{i:06d}" for i in range(source.per_class)]
        empty = np.ones(count, bool)
        columns = {
            "item": pa.array([label + number for label in labels for number in numbers], pa.string()),
            "target": pa.array(np.repeat(np.arange(source.classes, dtype=np.int32), source.per_class)),
            "split": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int8), mask=empty), pa.array(SPLITS)),
        }
        history = (f"drew up {source}: {count:,} pictures, {source.classes:,} classes",)
        return Dataset(pa.table(columns), str(source), labels, name="fractals", history=history)

    def given(self, uri: str) -> Fractals:
        """This source with the options of a uri, checked."""
        known = {field.name: type(field.default) for field in dataclasses.fields(self)}
        options: dict[str, Any] = {}
        for part in filter(None, (part.strip() for part in uri.removeprefix(SCHEME).split(","))):
            name, _, text = (side.strip() for side in part.partition("="))
            if name not in known:
                raise BadSetting(f"{SCHEME} has no option '{name}'. Its options: {_listing(self)}")
            options[name] = _value(name, text, known[name])
        source = dataclasses.replace(self, **options)
        wrong = [
            said
            for fine, said in (
                (source.classes >= 2, f"classes={source.classes} (at least 2)"),
                (source.per_class >= 1, f"per_class={source.per_class} (at least 1)"),
                (source.classes * source.per_class <= MOST, f"classes x per_class (at most {MOST:,} pictures)"),
                (1 <= source.several <= 9, f"several={source.several} (1 to 9)"),
                (2 <= source.maps <= 16, f"maps={source.maps} (2 to 16)"),
                (0 <= source.coverage <= 1, f"coverage={source.coverage} (0 to 1)"),
                (0 <= source.vary <= 0.5, f"vary={source.vary} (0 to 0.5)"),
                (0 <= source.turn <= 180, f"turn={source.turn} (0 to 180 degrees)"),
                (0 <= source.one <= 1, f"one={source.one} (0 to 1)"),
                (0 <= source.seed < 2**63, f"seed={source.seed} (0 to 2^63 - 1)"),
            )
            if not fine
        ]
        if wrong:
            raise BadSetting(f"{uri}: cannot draw with {', '.join(wrong)}")
        return source

    def labels(self) -> tuple[str, ...]:
        """Names of the classes."""
        width = max(4, len(str(self.classes - 1)))
        return tuple(f"class_{c:0{width}d}" for c in range(self.classes))

    def __str__(self) -> str:
        """The uri with every option: it names the same pictures whatever the defaults become."""
        return SCHEME + ",".join(f"{f.name}={_text(getattr(self, f.name))}" for f in dataclasses.fields(self))


def frames(
    dataset: Dataset, rows: Sequence[int] | NDArray[Any], side_px: int, seed: int = 0, threads: int | None = None
) -> NDArray[np.uint8]:
    """The pictures (B, side, side, 3) of some rows of a dataset that `Fractals` has read, or of a part of it."""
    import numpy as np

    if not dataset.root.startswith(SCHEME):
        raise BadData(f"{dataset.root} is not drawn. Expected a dataset read from {SCHEME}")
    source = Fractals().given(dataset.root)
    systems, sizes = _systems(_of_class(source))
    names = [name.split("/") for name in dataset.table["item"].take(np.asarray(rows, np.int64)).to_pylist()]
    places = [(int(label.removeprefix("class_")), int(number)) for label, number in names]
    size = max(1, CHUNK_PIXELS // side_px**2)
    chunks = [places[start : start + size] for start in range(0, len(places), size)]
    workers = min(threads or settings.threads().value, len(chunks))

    def draw(chunk: list[tuple[int, int]]) -> NDArray[np.uint8]:
        return _drawn(source, systems, sizes, chunk, side_px, seed)

    if workers > 1:
        with ThreadPoolExecutor(workers, thread_name_prefix="fractals") as pool:
            drawn = list(pool.map(draw, chunks))
    else:
        drawn = [draw(chunk) for chunk in chunks]
    return np.concatenate([np.zeros((0, side_px, side_px, 3), np.uint8), *drawn])


def _drawn(
    source: Fractals,
    systems: Systems,
    sizes: NDArray[np.int64],
    places: list[tuple[int, int]],
    side_px: int,
    seed: int,
) -> NDArray[np.uint8]:
    """One chunk, in lockstep: walk all fractals, place and count their points, lay them over each other."""
    import numpy as np

    from topwork.nn import ifs

    B, S, M = len(places), side_px, systems.shape[1]
    plans = [_Plan.of(source, place, M, S, seed) for place in places]
    owner = np.repeat(np.arange(B), [plan.count for plan in plans])  # (F,) picture of every fractal
    layer = np.concatenate([np.arange(plan.count) for plan in plans])
    u = np.concatenate([plan.where for plan in plans])  # (F, 5)
    number = np.array([c for c, _ in places])[owner]  # (F,) class
    own = systems[number]
    if source.vary and not source.one:
        own = ifs.contracted(own * (1 + source.vary * np.concatenate([plan.change for plan in plans])))
    points, led = ifs.walk(own, sizes[number], np.concatenate([plan.draws for plan in plans], 1))
    pixel = _placed(points, u, np.array([plan.count for plan in plans])[owner], S, source.turn)  # (T, F, P)
    pixel += (np.arange(len(owner)) * S * S)[:, None]
    hits = np.bincount((pixel * M + led).ravel(), minlength=len(owner) * S * S * M)
    palette = np.concatenate([plan.palette for plan in plans])  # (F, M, 4), the last is 1: how often a pixel is hit
    light = np.matmul(hits.reshape(-1, S * S, M).astype(np.float32), palette)  # (F, S^2, 4)
    n = light[..., 3]
    mean = n.sum(1) / np.maximum((n > 0).sum(1), 1)  # (F,) of the pixels hit
    over = 1 - np.exp(-1.5 * n / mean[:, None])
    ink = over[..., None] * light[..., :3] / np.maximum(n, 1)[..., None]
    picture = _backgrounds(np.stack([plan.noise for plan in plans]), S) if source.background and source.colour else 0
    picture = np.broadcast_to(np.float32(picture), (B, S * S, 3)).copy()
    for j in range(int(layer.max()) + 1):
        at = owner[layer == j]
        picture[at] = (1 - over[layer == j])[..., None] * picture[at] + ink[layer == j]
    return (picture * 255 + 0.5).clip(0, 255).astype(np.uint8).reshape(B, S, S, 3)


@dataclass(frozen=True, eq=False)
class _Plan:
    """What is drawn at random for one picture."""

    count: int  # F fractals
    where: NDArray[np.float64]  # (F, 5) in 0..1: turn, mirrored, size, across, down
    change: NDArray[np.float64]  # (F, M, 3) in -1..1
    palette: NDArray[np.float32]  # (F, M, 4)
    noise: NDArray[np.float32]  # (cells, 3) in 0..1, around one colour
    draws: NDArray[np.uint8]  # (STEPS, F, P)

    @classmethod
    def of(cls, source: Fractals, place: tuple[int, int], maps: int, side_px: int, seed: int) -> _Plan:
        """In a fixed order, what depends on the side last."""
        import numpy as np

        from topwork.nn import ifs

        rng = _generator(str(source), seed, *place)
        F = int(rng.integers(1, source.several + 1))
        where, change = rng.random((F, 5)), rng.uniform(-1, 1, (F, maps, 3))
        palette = np.ones((F, maps, 4), np.float32)
        if source.colour:
            hue, reach, paleness, light = rng.random((4, F, 1, 1))
            hue = hue + reach * rng.random((F, maps, 1)) + np.array([0, 1 / 3, 2 / 3])
            strong = 1 - 0.8 * paleness
            palette[..., :3] = (0.4 + 0.6 * light) * (1 - strong * (0.5 - 0.5 * np.cos(2 * np.pi * hue)))
        base, strength = rng.random(3, np.float32), rng.random(dtype=np.float32)
        noise: Any = base + strength * (rng.random((sum(cells**2 for cells in CELLS), 3), np.float32) - base)
        points = (2 if source.several == 1 else 1) * side_px**2
        walkers = 16 * max(1, -(-points // (16 * STEPS)))
        draws = rng.integers(0, ifs.LOTS, (STEPS + ifs.BURN, F, walkers), np.uint8)
        return cls(F, where, change, palette, noise, draws)


def _placed(
    points: NDArray[np.complex64], u: NDArray[np.float64], company: NDArray[np.int64], S: int, turn: float
) -> NDArray[np.int64]:
    """Turned, mirrored, sized and put wholly into the picture: number y S + x of each point's pixel (T, F, P)."""
    import numpy as np

    angle = np.deg2rad(turn) * (2 * u[:, 0] - 1)
    z = points * np.exp(1j * angle).astype(np.complex64)[:, None]  # (T, F, P)
    across, down = z.real, z.imag
    across = across * np.where(u[:, 1] < 0.5, -1, 1).astype(np.float32)[:, None]
    left, top = across.min((0, 2)), down.min((0, 2))  # (F,)
    wide, high = across.max((0, 2)) - left, down.max((0, 2)) - top
    size = np.where(company == 1, 0.6 + 0.4 * u[:, 2], 0.3 + 0.5 * u[:, 2]) * (S - 1)
    scale = size / np.maximum(np.maximum(wide, high), 1e-6)
    free_x, free_y = (S - 1 - scale * side for side in (wide, high))
    parts = [(across, left, u[:, 3] * free_x), (down, top, u[:, 4] * free_y)]
    x, y = (
        np.clip(
            (one - low[:, None]) * scale.astype(np.float32)[:, None] + start.astype(np.float32)[:, None] + 0.5, 0, S - 1
        )
        for one, low, start in parts
    )
    return y.astype(np.int64) * S + x.astype(np.int64)


def _backgrounds(noise: NDArray[np.float32], S: int) -> NDArray[np.float32]:
    """(B, cells, 3) in 0..1 -> (B, S^2, 3): octaves of 4, 8, 16 cells a side, each half as strong as the last."""
    import numpy as np

    B, start, weight = len(noise), 0, 4 / 7
    picture = np.zeros((B, S, S, 3), np.float32)
    for cells in CELLS:
        grid = noise[:, start : start + cells**2].reshape(B, cells, cells, 3)
        up = _upsampling(cells, S)  # (S, cells)
        rows = np.matmul(up, grid.reshape(B, cells, cells * 3)).reshape(B, S, cells, 3)
        picture += weight * np.matmul(up, rows)  # (B, S, S, 3)
        start, weight = start + cells**2, weight / 2
    return picture.reshape(B, S * S, 3)


@lru_cache(maxsize=16)
def _upsampling(cells: int, S: int) -> NDArray[np.float32]:
    """(S, cells): linear between the middles of the outermost cells."""
    import numpy as np

    at = np.linspace(0, cells - 1, S)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(cells)), 0).astype(np.float32)


_DRAWING_UP = threading.Lock()


def _of_class(source: Fractals) -> Fractals:
    """The options that the systems depend on, the others at their defaults: one key for all drawings of them."""
    names = ("classes", "maps", "coverage", "one", "seed")
    return Fractals(**{name: getattr(source, name) for name in names})


def _systems(source: Fractals) -> tuple[Systems, NDArray[np.int64]]:
    with _DRAWING_UP:  # the feed asks from several threads at once
        return _found(source)


@lru_cache(maxsize=4)
def _found(source: Fractals) -> tuple[Systems, NDArray[np.int64]]:
    """(C, M, 3) systems that fill enough of their square, and how many maps each has (C,)."""
    import numpy as np

    from topwork.nn import ifs

    C, M = 1 if source.one else source.classes, source.maps
    systems, sizes = np.zeros((C, M, 3), complex), np.zeros(C, np.int64)
    rngs = [_generator("system", source.maps, source.seed, c) for c in range(C)]
    wanted = np.arange(C)
    for _ in range(TRIES):
        for c in wanted:
            sizes[c] = rngs[c].integers(2, M + 1)
            systems[c] = 0
            systems[c, : sizes[c]] = ifs.sample(rngs[c], int(sizes[c]))
        wanted = wanted[[share < source.coverage for share in _coverage(systems[wanted], sizes[wanted])]]
        if not len(wanted):
            break
    else:
        raise BadSetting(f"{SCHEME}coverage={source.coverage}: no system of {TRIES} fills so much. Choose less")
    if source.one:
        change = [_generator("one", source.seed, c).uniform(-0.5, 0.5, (M, 2, 3)) for c in range(source.classes)]
        present = (np.arange(M) < sizes[0])[:, None, None]
        moved = ifs.real(systems[0]) + source.one * np.stack(change) * present
        return ifs.contracted(ifs.from_real(moved)), np.repeat(sizes, source.classes)
    return systems, sizes


def _coverage(systems: Systems, sizes: NDArray[np.int64]) -> list[float]:
    """Share of the pixels of its square that each system hits, the same look for all."""
    import numpy as np

    from topwork.nn import ifs

    shares: list[float] = []
    shape = (STEPS + ifs.BURN, 1, LOOK_POINTS // STEPS)
    draws = _generator("look").integers(0, ifs.LOTS, shape, np.uint8)
    for start in range(0, len(systems), LOOK_AT_ONCE):
        own = systems[start : start + LOOK_AT_ONCE]
        points, _ = ifs.walk(own, sizes[start : start + LOOK_AT_ONCE], draws)
        u = np.tile([0.5, 1.0, 1.0, 0.5, 0.5], (len(own), 1))  # upright, as large as can be
        pixel = _placed(points, u, np.ones(len(own), np.int64), LOOK_PX, 0.0)
        shares += [len(np.unique(pixel[:, f])) / LOOK_PX**2 for f in range(len(own))]
    return shares


def _generator(*what: object) -> np.random.Generator:
    """A counter-based generator that belongs to what it is for."""
    import numpy as np

    return np.random.Generator(np.random.Philox(key=int(digest([str(one) for one in what]), 16)))


def _value(name: str, text: str, kind: type) -> Any:
    """The option's value from its text."""
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if kind is not bool and type(value) in (int, kind):
        return kind(value)
    wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
    raise BadSetting(f"{SCHEME}{name}={text}: expected {wanted}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _listing(source: Fractals) -> str:
    return ", ".join(f"{f.name}={_text(f.default)}" for f in dataclasses.fields(source))
