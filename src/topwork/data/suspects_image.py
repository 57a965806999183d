"""Images that are readable and still suspicious: most are worth a look, some are better left out.

    kind             which                                                    score
    cut_off          the lower part is one grey, or the file lacks its end    share of the picture that is missing
    nearly_uniform   99 % and 1 % quantile of grey less than 20 apart         how far apart, in grey levels
    blurred          sharpness below 0.23 (image_measures.py)                 sharpness
    dark             99 % of the pixels below 60                              the 99 % quantile, in grey levels
    overexposed      99 % of the pixels above 210                             the 1 % quantile, in grey levels
    odd_brightness   mean grey 40 and 6 robust deviations from the median     deviations
    tiny             shorter side below 32 px and a third of the median's     shorter side, px
    odd_size         area 16 times and 8 robust deviations from the median    times the median (below 1: smaller)
    odd_shape        one side more than 3 times the other, others are not     longer side / shorter side
    odd_colour       grey, or of a rare mode (CMYK, 16 bit), among others     0: grey, 1: rare mode
    turned           EXIF says that it lies; others stand                     orientation, 2 to 8
    animated         more pictures than the first one, which is used          1

A robust deviation is 1.4826 times the median distance from the median, at least 2 grey levels or a tenth of an octave.
What holds for more than a fifth of the images is what the set is like: said in one line without rows.

Alarms, November 2026, 20,007 images of twelve real sets, looked at: blurred 2 and dark 1 (all three are), odd_size and
turned 1 (a camera's file among thumbnails), odd_shape 1 (3.4 to 1), odd_brightness 1 (black paper among drawings on
white), odd_colour 350 (grey by content; one is the notice "image not found"); none of the others. One set of 4,317 was
enlarged from smaller images: that is said in a line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from topwork.data.findings import COMMON, suspicious
from topwork.modalities.image_measures import BLURRED, LOOK_PX
from topwork.types import Dataset, Finding

if TYPE_CHECKING:
    from topwork.data.inspect_image import Seen

UNIFORM, DARK, LIGHT = 20, 60, 210  # grey levels
LOST = 2  # grey rows at the bottom, of 64
TINY_PX, TINY_SHARE = 32, 1 / 3
SIZE_TIMES, SIZE_DEVIATIONS = 16.0, 8.0
SHAPE = 3.0  # longer side / shorter side
BRIGHTNESS, BRIGHTNESS_DEVIATIONS = 40.0, 6.0
COLOURLESS = 2  # grey levels of Cb and Cr
COMMON_MODES = frozenset(("RGB", "RGBA", "P", "L", "LA"))
ENOUGH = 20  # images from which "unlike the rest" means something


def suspects(dataset: Dataset, seen: Seen) -> list[Finding | None]:
    """Everything above that is there."""

    def found(kind: str, mask: NDArray[Any], scores: NDArray[Any], message: str, fix: str, **how: Any) -> None:
        out.append(suspicious(dataset, kind, np.flatnonzero(mask), scores, message, fix, **how))

    out: list[Finding | None] = []
    sure = ~seen.blank
    low, high = seen.tones.astype(int).T
    means, colour = seen.sketches[:, :256].mean(1), seen.sketches[:, 256:]
    share = np.where(seen.lost > 0, seen.lost / LOOK_PX, 0.0)

    cut = (seen.lost >= LOST) | ~seen.ended
    found("cut_off", cut, share, "{} broken off: the end is missing", "fetch them again, or leave them out", sure=True)
    uniform = sure & (high - low < UNIFORM)
    found("nearly_uniform", uniform, high - low, "{} nearly of one colour", "look at them: empty or broken recordings?")
    blurred = sure & ~uniform & ~cut & (seen.sharpness < BLURRED)
    found("blurred", blurred, seen.sharpness, "{} very blurred", "look at them; leave out what shows nothing")
    dark = sure & ~uniform & (high < DARK)
    found(
        "dark", dark, high, "{} under-exposed: hardly anything is bright", "look at them; leave out what shows nothing"
    )
    light = sure & ~uniform & (low > LIGHT)
    found("overexposed", light, low, "{} over-exposed: nothing is dark", "look at them; leave out what shows nothing")

    far = _far(means, 2.0)
    odd = (np.abs(means - _median(means)) > BRIGHTNESS) & (far > BRIGHTNESS_DEVIATIONS) & sure & ~dark & ~light
    found("odd_brightness", odd & _many(seen), far, "{} far brighter or darker than the rest", "do they belong here?")

    sides = np.sort(seen.sizes[:, :2], 1).astype(float)  # shorter, longer
    tiny = (sides[:, 0] < TINY_PX) & (sides[:, 0] < TINY_SHARE * _median(sides[:, 0]))
    found("tiny", tiny, sides[:, 0], "{} tiny", "look at them: icons, thumbnails? Fetch larger ones, or leave them out")
    octaves = np.log2(np.maximum(sides.prod(1), 1))
    times = np.exp2(octaves - _median(octaves))
    odd = (np.abs(np.log2(times)) > np.log2(SIZE_TIMES)) & (_far(octaves, 0.1) > SIZE_DEVIATIONS) & ~tiny
    found("odd_size", odd & _many(seen), times, "{} of quite another size than the rest", "do they belong here?")
    shape = sides[:, 1] / np.maximum(sides[:, 0], 1)
    odd = (shape > SHAPE) & (shape > 2 * _median(shape))
    found("odd_shape", odd, shape, "{} much longer than wide, or wider than long", "crop them, or leave them out")

    colourless = (np.abs(colour.astype(np.int16) - 128).max(1, initial=0) <= COLOURLESS) & sure
    rare = np.array([word not in COMMON_MODES for word in seen.words], bool)[seen.kinds[:, 0]] if len(sides) else sure
    grey_set = colourless.mean() > COMMON if len(sides) else False
    odd = (rare | (colourless & ~uniform & ~dark & ~light & (not grey_set))) & _many(seen)
    fix = "expected? A model may take the absence of colour for a mark of its class"
    found("odd_colour", odd, rare & ~colourless, "{} without colour, or of a rare mode, among coloured ones", fix)

    fix = "set upright here; tools that ignore EXIF see them lying: save them upright"
    found("turned", seen.turn > 1, seen.turn, "{} turned by EXIF among others that are not", fix)
    found("animated", seen.animated, np.ones(len(sides)), "{} animated", "only the first picture is used")
    return out


def _far(values: NDArray[Any], least: float) -> NDArray[np.float64]:
    """(N,) distances from the median, in robust deviations of at least `least`."""
    off = np.abs(values - _median(values))
    return off / max(1.4826 * _median(off), least)


def _median(values: NDArray[Any]) -> float:
    return float(np.median(values)) if len(values) else 0.0


def _many(seen: Seen) -> bool:
    return len(seen.blank) >= ENOUGH
