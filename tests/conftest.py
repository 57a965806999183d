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
    for name in ("CACHE_FOLDER", "REDIS_PASSWORD", "ENCRYPT", "KEY_FILE", "KEY"):
        monkeypatch.delenv(f"TOPWORK_{name}", raising=False)


@pytest.fixture(scope="session", autouse=True)
def frozen_steps():
    """Steps that change the backbone take a minute: what asks for the usual steps gets those up to the frozen probe."""
    from topwork import planning

    planning.AUTO = ("majority", "pixels", "probe")


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


@pytest.fixture
def one_thread(monkeypatch):
    """Small networks are fastest on one thread, and give the same bits."""
    import torch

    monkeypatch.setenv("TOPWORK_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    """A small network with random weights, as a local folder; it sees 32 x 32 pixels."""
    import timm
    import torch

    from topwork.backbones import folder_write
    from topwork.types import Preprocess

    folder = tmp_path_factory.mktemp("weights") / "small"
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=0)
    half = (0.5, 0.5, 0.5)
    call = "timm.create_model('test_resnet', num_classes=0)"
    folder_write.write(folder, network, call, Preprocess(36, 32, half, half), {"name": "s"})
    return f"local:{folder}"


def draw_stripes(folder, angles, items, seed=0, noise=60):
    """A class per angle of its stripes, in any colours over noise: random features hardly tell them apart."""
    draw = np.random.default_rng(seed)
    u, v = np.meshgrid(np.arange(32), np.arange(32))
    for label, angle in angles.items():
        (folder / label).mkdir(parents=True)
        for i in range(items):
            wave = np.sin(u * np.cos(angle) + v * np.sin(angle) + draw.uniform(0, 6.28))[..., None]
            picture = 128 + 60 * wave * draw.uniform(-1, 1, 3) + draw.normal(0, noise, (32, 32, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / label / f"{i:03}.png")
    return folder


@pytest.fixture(scope="session")
def stripes(tmp_path_factory):
    """Two classes of 40, stripes that lean left or right."""
    return draw_stripes(tmp_path_factory.mktemp("data") / "stripes", {"left": 0.785, "right": -0.785}, 40)


@pytest.fixture(scope="session")
def one_redis(tmp_path_factory):
    """A real redis-server for the whole session; tests that use it skip where there is none."""
    from .redis_server import RedisServer

    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


@pytest.fixture
def redis_server(one_redis):
    """The session's redis-server, empty."""
    one_redis.client.flushall()
    return one_redis
