"""Servers on loopback: S3 as moto speaks it, and a web server that can be told to misbehave. Both count requests."""

import contextlib
import hashlib
import html
import logging
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import pytest

SILENT = "silent"


class Buckets:
    """An S3 server in a thread. `asked` counts (method, path); `behave(method, path)` may sleep, or return a status."""

    def __init__(self, patch, latency=0.0):
        moto = pytest.importorskip("moto.server", reason="moto is not installed")
        pytest.importorskip("s3fs", reason="the remote extra is not installed")
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self.server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self.server.start()
        self.asked, self.latency, self.behave, self.spoil = Counter(), latency, None, None
        self._inner, self.server._server.app = self.server._server.app, self._answer
        self._lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server.get_host_and_port()[1]}"
        for name, value in {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "someone",
            "AWS_SECRET_ACCESS_KEY": "secret-word",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        import botocore.session

        self.client = botocore.session.get_session().create_client("s3")

    def make(self, bucket):
        self.client.create_bucket(Bucket=bucket)
        return bucket

    def put(self, bucket, key, data):
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def upload(self, bucket, folder, prefix=""):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                self.put(bucket, prefix + path.relative_to(folder).as_posix(), path.read_bytes())

    def gets(self, bucket):
        """Objects that were fetched, and how often."""
        found = {p: n for (m, p), n in self.asked.items() if m == "GET" and p.startswith(f"/{bucket}/")}
        return Counter({path: count for path, count in found.items() if not path.endswith("?list")})

    def forget(self):
        with self._lock:
            self.asked.clear()

    def close(self):
        self.client.close()
        self.server.stop()

    def _answer(self, environ, start):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        listing = "list-type" in environ.get("QUERY_STRING", "")
        with self._lock:
            self.asked[method, f"{path.rstrip('/')}/?list" if listing else path] += 1
        if self.latency:
            time.sleep(self.latency)
        status = self.behave(method, path) if self.behave is not None else None
        if status is not None:
            start(f"{status} x", [("Content-Length", "0")])
            return [b""]
        answer = self._inner(environ, start)
        if self.spoil is not None and method == "GET" and not listing:
            body = b"".join(answer)
            if hasattr(answer, "close"):
                answer.close()
            return [self.spoil(path, body)]
        return answer


class Web:
    """A web server of a folder. `plans[path]` says what happens next: a status, "cut", "short", "long", SILENT."""

    def __init__(self, folder):
        self.folder, self.asked, self.plans, self.headers = Path(folder), Counter(), {}, []
        self.etags, self.ranges, self.login, self.lengths, self.redirects = True, True, None, True, {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                web._serve(self, body=False)

            def do_GET(self):
                web._serve(self, body=True)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def gets(self):
        return Counter({path: n for (method, path), n in self.asked.items() if method == "GET"})

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def _serve(self, handler, body):
        path = unquote(urlsplit(handler.path).path)
        self.asked[handler.command, path] += 1
        self.headers.append(dict(handler.headers))
        plan = self.plans.get(path) or self.plans.get("*") or []
        trick = plan.pop(0) if plan and (body or plan[0] != "cut") else None
        if self.login and handler.headers.get("Authorization") != self.login:
            return self._plain(handler, 401)
        if isinstance(trick, int):
            return self._plain(handler, trick)
        if trick == SILENT:
            time.sleep(30)
            return None
        if path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[path])
            handler.send_header("Content-Length", "0")
            return handler.end_headers()
        place = self.folder / path.lstrip("/")
        if place.is_dir():
            return self._page(handler, place, body)
        if not place.is_file():
            return self._plain(handler, 404)
        return self._file(handler, place.read_bytes(), body, trick)

    def _file(self, handler, data, body, trick):
        etag = f'"{hashlib.sha1(data).hexdigest()}"'
        start = 0
        asked = handler.headers.get("Range", "")
        if self.ranges and asked.startswith("bytes=") and handler.headers.get("If-Range", etag) == etag:
            start = int(asked[6:].partition("-")[0])
        part = data[start:]
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Type", "application/octet-stream")
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.etags:
            handler.send_header("ETag", etag)
        length = len(part) + {"short": -5, "long": 5}.get(trick, 0)
        if self.lengths:
            handler.send_header("Content-Length", str(length))
        else:
            handler.send_header("Connection", "close")
        handler.end_headers()
        if not body:
            return
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(part[: len(part) // 2] if trick == "cut" else part)
        if trick in ("cut", "long") or not self.lengths:
            handler.close_connection = True

    def _page(self, handler, place, body):
        names = sorted(p.name + "/" * p.is_dir() for p in place.iterdir())
        links = "".join(f'<li><a href="{quote(n)}">{html.escape(n)}</a></li>' for n in names)
        page = f'<html><a href="../">up</a><a href="/etc/passwd">x</a><a href="?C=M">sort</a><ul>{links}</ul></html>'
        data = page.encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html; charset=utf-8")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        if body:
            handler.wfile.write(data)

    def _plain(self, handler, status):
        handler.send_response(status)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
