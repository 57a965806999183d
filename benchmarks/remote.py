"""Reading a bucket: local files, one object after the other, read ahead, and a second time from the local copies.

    python benchmarks/remote.py [--data FOLDER] [--limit 400] [--latency-ms 0 20 50] [--rounds 3]

The server is moto's, in a process of its own on this machine; `latency` is added to every answer, since loopback has
none. All ways run in every round, in turn; the median of images per second over rounds is printed, and the ratios to
plain local reading and to one after the other. `extract` is the whole of it: list, read, hash, inspect, one forward
pass per image by the bundled backbone, with an empty cache, and how much longer it takes than on the folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _shared import dataset

SERVER = """
import logging, sys, threading, time
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
inner, wait = server._server.app, [0.0]
def app(environ, start):
    if environ["PATH_INFO"] == "/wait":
        wait[0] = float(environ["QUERY_STRING"])
        start("200 OK", [("Content-Length", "0")])
        return [b""]
    time.sleep(wait[0])
    return inner(environ, start)
server._server.app = app
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Reading a bucket against reading a folder.")
    parser.add_argument("--data", default=None, help="a folder of images; default: flowers5_small")
    parser.add_argument("--limit", type=int, default=400, help="images to use")
    parser.add_argument("--latency-ms", type=float, nargs="+", default=[0, 20, 50])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    root = Path(options.data or dataset("flowers5_small"))
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as server,
    ):
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "k",
            "AWS_SECRET_ACCESS_KEY": "s",
            "AWS_DEFAULT_REGION": "us-east-1",
            "TOPWORK_CACHE": f"{folder}/cache",
        }
        try:
            compare(root, url, options)
        finally:
            server.kill()


def compare(root: Path, url: str, options: argparse.Namespace) -> None:
    """Every way in turn, for each latency."""
    import topwork
    from topwork.sources import read
    from topwork.store import remote

    found = read(root)
    paths = found.take(range(0, len(found), max(1, len(found) // options.limit))).paths()[: options.limit]
    size = upload(root, paths)
    each = f"{size / len(paths) / 1e3:.0f} kB each"
    print(f"{len(paths):,} images, {size / 1e6:.1f} MB, {each}; {os.cpu_count()} processors")
    there = read("s3://data/photos").paths()

    def plain() -> None:
        for path in paths:
            remote.read(path)

    def one_by_one() -> None:
        for path in there:
            remote.read(path)

    def ahead() -> None:
        with remote.ahead(there):
            for path in there:
                remote.read(path)

    for wait in options.latency_ms:
        set_latency(url, wait / 1e3)
        seconds: dict[str, list[float]] = {}
        for _ in range(options.rounds):
            seconds.setdefault("local files", []).append(timed(plain))
            remote.copies().clear()
            remote.forget()
            read("s3://data/photos")
            seconds.setdefault("one after the other", []).append(timed(one_by_one))
            remote.copies().clear()
            remote.forget()
            read("s3://data/photos")
            seconds.setdefault("read ahead", []).append(timed(ahead))
            seconds.setdefault("local copies", []).append(timed(one_by_one))
        report(f"latency {wait:g} ms", seconds, len(there))
    for wait in options.latency_ms:
        set_latency(url, wait / 1e3)
        seconds = {}
        for number in range(options.rounds):
            for name, data in (("extract, folder", root_of(paths, root)), ("extract, bucket", "s3://data/photos")):
                os.environ["TOPWORK_CACHE"] = (
                    f"{os.environ['TOPWORK_CACHE'].rsplit('/', 1)[0]}/{wait:g}-{number}-{name[9:]}"
                )
                remote.forget()
                seconds.setdefault(name, []).append(timed(lambda data=data: topwork.extract(data)))
        here, away = (statistics.median(seconds[name]) for name in ("extract, folder", "extract, bucket"))
        print(
            f"latency {wait:g} ms: extract {here:.1f} s on the folder, {away:.1f} s on the bucket: {away / here:.2f} x"
        )


def root_of(paths: Sequence[str], root: Path) -> str:
    """A folder of links to the images that were uploaded."""
    folder = Path(tempfile.mkdtemp()) / "photos"
    for path in paths:
        place = folder / Path(path).relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path)
    return str(folder)


def upload(root: Path, paths: Sequence[str]) -> int:
    """All images to s3://data/photos; their bytes."""
    import botocore.session

    client = botocore.session.get_session().create_client("s3")
    client.create_bucket(Bucket="data")
    size = 0
    for path in paths:
        data = Path(path).read_bytes()
        size += len(data)
        client.put_object(Bucket="data", Key=f"photos/{Path(path).relative_to(root).as_posix()}", Body=data)
    client.close()
    return size


def set_latency(url: str, seconds: float) -> None:
    """Of every answer of the server."""
    from urllib.request import urlopen

    urlopen(f"{url}/wait?{seconds}").close()


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def report(title: str, seconds: dict[str, list[float]], count: int) -> None:
    """Images per second, and ratios of medians."""
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in middle.items():
        against = f"{middle['local files'] / value:.3f} x local files"
        print(f"{title}: {name:20} {count / value:8.0f} images/s  {against}", end="")
        print(f", {middle['one after the other'] / value:.1f} x one after the other")


if __name__ == "__main__":
    main()
