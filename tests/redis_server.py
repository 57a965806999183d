"""A real redis-server on a free port of this machine, as long as a test needs it."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time

import pytest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """Started at once; nothing is saved to disk."""

    def __init__(self, folder, *options, port=None):
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed")
        redis = pytest.importorskip("redis", reason="the redis extra is not installed")
        self.port = port or free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", os.fspath(folder),
             "--logfile", "redis.log", *map(str, options)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        password = options[options.index("--requirepass") + 1] if "--requirepass" in options else None
        self.client = redis.Redis(port=self.port, password=password, protocol=2, socket_timeout=5)
        for _ in range(200):
            with contextlib.suppress(redis.RedisError):
                self.client.ping()
                return
            time.sleep(0.02)
        raise RuntimeError((folder / "redis.log").read_text())

    def url(self, database=0, user=""):
        return f"redis://{user}127.0.0.1:{self.port}/{database}"

    def pause(self):
        """It hangs: connections stay open and nobody answers."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.client.close()
