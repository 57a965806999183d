"""Sharpness, exposure and lost rows against plain computations."""

import numpy as np
from scipy.ndimage import gaussian_filter, laplace

from topwork.modalities.image_measures import BLURRED, exposure, lost_rows, sharpness


def noise(seed, slope=1.0):
    """(64, 64) grey values whose power falls as in natural pictures."""
    rng = np.random.default_rng(seed)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    f[0, 0] = 1
    waves = np.fft.ifft2(np.fft.fft2(rng.standard_normal((64, 64))) / f**slope).real
    return (128 + 40 * waves / waves.std()).clip(0, 255).astype(np.uint8)


def coarse(grey):
    return grey.reshape(16, 4, 16, 4).mean((1, 3)).round().astype(np.uint8)


def plain(grey, small):
    """Root mean square of the strongest 5 % of the Laplacian, fine over coarse."""
    tops = []
    for image, count in ((grey, 200), (small, 10)):
        edges = np.sort(np.abs(laplace(image.astype(float))[1:-1, 1:-1]).ravel())[-count:]
        tops.append(np.sqrt((edges**2).mean()))
    return tops[0] / max(tops[1], 1)


def test_sharpness_is_what_it_says_and_falls_with_blur():
    for seed in range(8):
        grey = noise(seed)
        value = sharpness(grey, coarse(grey))
        np.testing.assert_allclose(value, plain(grey, coarse(grey)), rtol=1e-5)
        assert value > 2 * BLURRED
        soft = gaussian_filter(grey.astype(float), 1.5).round().astype(np.uint8)
        assert sharpness(soft, coarse(soft)) < BLURRED


def test_sharpness_does_not_depend_on_contrast():
    grey = noise(1)
    faint = (128 + (grey.astype(float) - 128) * 0.4).round().astype(np.uint8)
    np.testing.assert_allclose(sharpness(faint, coarse(faint)), sharpness(grey, coarse(grey)), rtol=0.05)


def test_a_sharp_part_before_a_blurred_ground_is_sharp():
    grey = noise(2)
    part = gaussian_filter(grey.astype(float), 3).round().astype(np.uint8)
    part[20:44, 20:44] = grey[20:44, 20:44]
    assert sharpness(part, coarse(part)) > BLURRED


def test_one_colour_is_not_sharp():
    flat = np.full((64, 64), 7, np.uint8)
    assert sharpness(flat, coarse(flat)) == 0


def test_exposure_is_two_quantiles():
    for seed in range(5):
        grey = noise(seed)
        ordered = np.sort(grey, axis=None)
        assert exposure(grey) == (ordered[40], ordered[-41])


def test_lost_rows():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert lost_rows(colours) == 0
    colours[50:] = 128
    assert lost_rows(colours) == 14
    colours[50:] = 90  # a plain border of another grey
    assert lost_rows(colours) == 0
    colours[:] = 128
    assert lost_rows(colours) == 64
