"""What every test may count on: no network, its own cache, small photos made on the spot."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for hub in ("HF_HOME", "TORCH_HOME"):  # what the user has downloaded is not ranked or listed here
    os.environ[hub] = os.path.join(tempfile.gettempdir(), "topwork-tests-without-hubs", hub)
SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Nothing is read from or left in the user's cache."""
    monkeypatch.setenv("TOPWORK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session", autouse=True)
def frozen_steps():
    """Steps that change the backbone take a minute: what asks for the usual steps gets those up to the frozen probe."""
    from topwork import ladder

    ladder.AUTO = ("majority", "pixels", "probe")


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three classes of 20 small pictures that differ in colour and stripes: easy, but not for the majority class."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    draw = np.random.default_rng(7)
    for label, colour in {"amber": (220, 160, 40), "moss": (70, 130, 60), "slate": (90, 100, 120)}.items():
        (folder / label).mkdir(parents=True)
        for i in range(20):
            picture = (
                draw.normal(colour, 45, (48, 64, 3)) + 40 * np.sin(np.arange(64) * draw.uniform(0.1, 0.9))[:, None]
            )
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / label / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def broken():
    """The folder of really broken files; tests that use it skip where it is absent."""
    folder = SHARED / "data" / "broken"
    if not folder.is_dir():
        pytest.skip("../shared/data/broken is not here")
    return folder


@pytest.fixture(scope="session")
def weights():
    """The folder of real pretrained weights; tests that use it skip where it is absent."""
    folder = SHARED / "weights"
    if not folder.is_dir():
        pytest.skip("../shared/weights is not here")
    return folder
