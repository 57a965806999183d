"""The shared cache against the local one, in one run: batch put and get in MB/s, alone and encrypted.

    .venv/bin/python benchmarks/shared_cache.py [ROUNDS]

A redis-server of its own on loopback, nothing saved to disk; LMDB in a temporary folder. Stores take turns within every
round, new keys in each. Values are random float32 rows: D = 1280 (MobileNetV2, 5 KB) in batches of 256, which is about
what extraction puts at once, and D = 16 (64 bytes) in batches of 4,096, which is all overhead. Means with the standard
error over the rounds, and each store's rate over LMDB's in the same round, as a geometric mean.

Measured 2026-11-21 on two cores that others used, too (load 9; 8 rounds; redis 7.0, py-lmdb 3.0, cryptography 50), MB/s
and share of LMDB's: 5 KB: LMDB put 42 ± 4, get 484 ± 67; redis 69 (1.61), 116 (0.24); redis over LMDB, which writes to
both, 23 (0.57), 122 (0.25); LMDB encrypted 33 (0.79), 217 (0.42); redis encrypted 48 (1.14), 86 (0.18). 64 bytes: LMDB
1.7 ± 0.4, 8.6 ± 1.9; redis 1.6 (0.99), 5.8 (0.72); redis over LMDB 0.7 (0.47), 6.1 (0.71); LMDB encrypted 1.1 (0.67),
3.4 (0.41); redis encrypted 1.1 (0.68), 2.8 (0.35). What is counted is what a server takes, to a few per cent: 20,000
entries of 64 bytes take 8.2 MB, counted 8.0; of 5,120 bytes 129.5 MB, counted 128.9.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from topwork.store.cache import Cache
from topwork.store.encryption import Encrypted
from topwork.store.keys import Key
from topwork.store.redis_cache import RedisCache
from topwork.types import Choice

LIMIT = Choice("cache limit", 4 << 30, "benchmark")
SIZES = {5120: (256, 16), 64: (4096, 4)}  # bytes of a value: values of a batch, batches of a round


def main(rounds: int) -> None:
    """Print one table per size of a value, and what an entry takes in the server's memory."""
    if shutil.which("redis-server") is None:
        raise SystemExit("skipped: redis-server is not installed")
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        server = subprocess.Popen(
            ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdout=subprocess.DEVNULL,
        )
        try:
            time.sleep(0.5)
            _measure(f"redis://127.0.0.1:{port}/", Path(folder), rounds)
        finally:
            server.kill()
            server.wait()


def _measure(url: str, folder: Path, rounds: int) -> None:
    key = Key(secrets.token_bytes(32))
    stores: dict[str, Any] = {
        "lmdb": Cache(folder / "a", LIMIT),
        "redis": RedisCache(f"{url}0", None, LIMIT),
        "redis over lmdb": RedisCache(f"{url}1", Cache(folder / "b", LIMIT), LIMIT),
        "lmdb encrypted": Encrypted(Cache(folder / "c", LIMIT), key),
        "redis encrypted": Encrypted(RedisCache(f"{url}2", None, LIMIT), key),
    }
    for size, (batch, batches) in SIZES.items():
        rates: dict[tuple[str, str], list[float]] = {}
        for turn in range(rounds + 1):  # the first one warms up
            values = np.random.default_rng(turn).integers(0, 256, (batch * batches, size), dtype=np.uint8)
            pairs = [(secrets.token_bytes(16), row.tobytes()) for row in values]
            parts = [pairs[start : start + batch] for start in range(0, len(pairs), batch)]
            for name, store in stores.items():
                began = time.perf_counter()
                for part in parts:
                    store.put_many("features/x", part)
                middle = time.perf_counter()
                found = [store.get_many("features/x", [key for key, _ in part]) for part in parts]
                get, put = time.perf_counter() - middle, middle - began
                assert [value for part in found for value in part] == [value for _, value in pairs]
                if turn:
                    for what, seconds in (("put", put), ("get", get)):
                        rates.setdefault((name, what), []).append(len(pairs) * size / 1e6 / seconds)
        print(f"values of {size:,} bytes, batches of {batch:,}")
        for name in stores:
            print(f"  {name:<16}", "   ".join(_told(rates, name, what) for what in ("put", "get")))
    _memory(stores["redis"], url)
    for store in stores.values():
        assert not store.notes, store.notes
        store.close()


def _told(rates: dict[tuple[str, str], list[float]], name: str, what: str) -> str:
    x, base = np.array(rates[name, what]), np.array(rates["lmdb", what])
    error = x.std(ddof=1) / len(x) ** 0.5
    return f"{what} {x.mean():7,.1f} ± {error:5,.1f} MB/s ({np.exp(np.log(x / base).mean()):.2f} of lmdb)"


def _memory(store: RedisCache, url: str) -> None:
    import redis

    used = redis.Redis.from_url(f"{url}0").info("memory")["used_memory"]
    store.clear()
    freed = used - redis.Redis.from_url(f"{url}0").info("memory")["used_memory"]
    begin = redis.Redis.from_url(f"{url}0").info("memory")["used_memory"]
    for size in (64, 5120):
        for _ in range(20):
            store.put_many("features/x", [(secrets.token_bytes(16), bytes(size)) for _ in range(1000)])
        taken = redis.Redis.from_url(f"{url}0").info("memory")["used_memory"] - begin
        counted = store.info()["bytes"]
        print(
            f"20,000 entries of {size:,} bytes: the server takes {taken / 1e6:,.1f} MB, counted {counted / 1e6:,.1f} MB"
        )
        store.clear()
    print(f"clearing gave {freed / 1e6:,.1f} MB back")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
