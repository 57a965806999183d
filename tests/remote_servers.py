"""Servers on loopback that count requests and misbehave as told: S3 as moto speaks it, Google's storage as
gcp-storage-emulator does, Azure's as Azurite does, and a web server.
"""

import base64
import contextlib
import hashlib
import html
import http.client
import json
import logging
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

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

    def uri(self, bucket, key=""):
        return f"s3://{bucket}/{key}"

    def wrong_key(self, patch, tmp_path):
        self.behave = lambda *_: 403  # moto looks at no signature

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


_OF_A_HOP = ("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server")


class _Between:
    """Stands before a real server and passes requests on; counts and misbehaves as Buckets does."""

    scheme = ""

    def __init__(self, port):
        self.asked, self.latency, self.behave, self.spoil = Counter(), 0.0, None, None
        self._lock = threading.Lock()
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_GET(self):
                between._pass_on(self, port)

            do_HEAD = do_POST = do_GET

        self.front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.front.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.front.server_address[1]}"
        threading.Thread(target=self.front.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def uri(self, bucket, key=""):
        return f"{self.scheme}://{bucket}/{key}"

    def upload(self, bucket, folder, prefix=""):
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                self.put(bucket, prefix + path.relative_to(folder).as_posix(), path.read_bytes())

    def gets(self, bucket):
        """Objects that were fetched, and how often."""
        return Counter(
            {path: n for (method, path), n in self.asked.items() if method == "GET" and path.startswith(f"/{bucket}/")}
        )

    def forget(self):
        with self._lock:
            self.asked.clear()

    def close(self):
        self.front.shutdown()
        self.front.server_close()

    def _pass_on(self, handler, port):
        kind, path = self._what(handler)
        with self._lock:
            self.asked[kind, path] += 1
        if self.latency:
            time.sleep(self.latency)
        status = self.behave(kind, path) if self.behave is not None else None
        body, headers = b"", []
        if status is None:
            length = int(handler.headers.get("Content-Length") or 0)
            there = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {name: value for name, value in handler.headers.items() if name.lower() != "connection"}
            there.request(handler.command, handler.path, handler.rfile.read(length), headers)
            answer = there.getresponse()
            status, headers, body = answer.status, answer.getheaders(), answer.read()
            there.close()
        if handler.command == "HEAD":
            lengths = [value for name, value in headers if name.lower() == "content-length"]
        else:
            if self.spoil is not None and kind == "GET" and status < 300:
                body = self.spoil(path, body)
            body, more = self._changed(handler, kind, body)
            headers, lengths = [*headers, *more], [str(len(body))]
        handler.send_response(status)
        for name, value in headers:
            if name.lower() not in (
                "connection",
                "keep-alive",
                "transfer-encoding",
                "content-length",
                "date",
                "server",
            ):
                handler.send_header(name, value)
        for value in lengths or ["0"]:
            handler.send_header("Content-Length", value)
        handler.end_headers()
        with contextlib.suppress(ConnectionError):
            handler.wfile.write(body)

    def _changed(self, handler, kind, body):
        return body, []


class GoogleBuckets(_Between):
    """Google's storage, as gcp-storage-emulator speaks it; it knows neither pages nor encodings: done here."""

    scheme = "gs"

    def __init__(self, patch):
        pytest.importorskip("gcsfs", reason="gcsfs is not installed")
        emulator = pytest.importorskip("gcp_storage_emulator.server", reason="gcp-storage-emulator is not installed")
        for name in ("gcp_storage_emulator", "api", "api.object", "api.bucket"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        self.server = emulator.create_server("127.0.0.1", 0, in_memory=True)
        self.server.start()
        self._port = self.server._api._httpd.server_address[1]
        super().__init__(self._port)
        patch.setenv("STORAGE_EMULATOR_HOST", self.url)
        patch.setenv("GOOGLE_CLOUD_PROJECT", "nobody")
        patch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)

    def make(self, bucket):
        self._post("/storage/v1/b", json.dumps({"name": bucket}).encode(), "application/json")
        return bucket

    def put(self, bucket, key, data):
        path = f"/upload/storage/v1/b/{bucket}/o?name={quote(key, safe='')}&uploadType="
        if data:
            return self._post(path + "media", data, "application/octet-stream")
        parts = b"".join(
            b"--x\r\nContent-Type: %s\r\n\r\n%s\r\n" % part for part in ((b"application/json", b"{}"), (b"a/b", b""))
        )
        return self._post(path + "multipart", parts + b"--x--", "multipart/related; boundary=x")  # else it fails

    def wrong_key(self, patch, tmp_path):
        """A key of the right form that the server of tokens, here ours, does not know."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        pem = rsa.generate_private_key(65537, 2048).private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        told = {
            "type": "service_account", "project_id": "nobody", "private_key_id": "secret-word", "client_id": "1",
            "private_key": pem.decode(), "client_email": "someone@example.com", "token_uri": f"{self.url}/token",
        }  # fmt: skip
        (tmp_path / "key.json").write_text(json.dumps(told))
        patch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
        self.behave = lambda method, path: 400 if path.endswith("/token") else None

    def close(self):
        super().close()
        self.server.stop()

    def _post(self, path, data, kind):
        there = http.client.HTTPConnection("127.0.0.1", self._port)
        there.request("POST", path, data, {"Content-Type": kind})
        answer = there.getresponse()
        assert answer.status < 300, answer.read()
        there.close()

    def _what(self, handler):
        path = urlsplit(handler.path).path.removeprefix("/storage/v1")
        if not path.startswith("/b/"):
            return handler.command, path
        bucket, _, key = path.removeprefix("/b/").partition("/o")
        if not key:
            return "LIST", f"/{bucket}/?list"
        return "GET" if "alt=media" in handler.path else "HEAD", f"/{bucket}/{unquote(key[1:])}"

    def _changed(self, handler, kind, body):
        asked = parse_qs(urlsplit(handler.path).query)
        if kind == "LIST" and body:
            told = json.loads(body)
            entries = sorted([*told["items"], *told["prefixes"]], key=lambda e: e["name"] if isinstance(e, dict) else e)
            begin = int(asked.get("pageToken", ["0"])[0])
            end = begin + int(asked["maxResults"][0])
            page = entries[begin:end]
            told["items"] = [self._marked(entry) for entry in page if isinstance(entry, dict)]
            told["prefixes"] = [entry for entry in page if isinstance(entry, str)]
            told |= {"nextPageToken": str(end)} if end < len(entries) else {}
            return json.dumps(told).encode(), []
        if kind == "HEAD" and body:
            return json.dumps(self._marked(json.loads(body))).encode(), []
        coded = kind == "GET" and handler.path.partition("?")[0].endswith("gz-coded")
        return body, [("Content-Encoding", "gzip")] if coded else []

    def _marked(self, entry):
        return {**entry, "contentEncoding": "gzip"} if entry.get("name", "").endswith("gz-coded") else entry


class AzureBuckets(_Between):
    """Azure's storage, as Azurite speaks it: a program of Node, started where it is on the PATH."""

    scheme = "az"
    account, key = "devstoreaccount1", base64.b64encode(b"a key of ours, thirty-two bytes.").decode()

    def __init__(self, patch):
        pytest.importorskip("adlfs", reason="adlfs is not installed")
        program = shutil.which("azurite-blob")
        if program is None:
            pytest.skip("azurite-blob is not on the PATH")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        patch.setenv("AZURITE_ACCOUNTS", f"{self.account}:{self.key}")
        command = [program, "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert self.process.poll() is None, "azurite-blob has ended"
            assert time.monotonic() < until, "azurite-blob does not answer"
            time.sleep(0.1)
        super().__init__(port)
        from azure.storage.blob import BlobServiceClient

        self.client = BlobServiceClient.from_connection_string(self._login(self.key, f"http://127.0.0.1:{port}"))
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", self._login(self.key, self.url))

    def make(self, bucket):
        self.client.create_container(bucket)
        return bucket

    def put(self, bucket, key, data):
        self.client.get_blob_client(bucket, key).upload_blob(data, overwrite=True)

    def wrong_key(self, patch, tmp_path):
        wrong = base64.b64encode(b"secret-word").decode()
        patch.setenv("AZURE_STORAGE_CONNECTION_STRING", self._login(wrong, self.url))

    def close(self):
        super().close()
        self.client.close()
        self.process.terminate()
        self.process.wait()

    def _login(self, key, url):
        name = self.account
        return f"DefaultEndpointsProtocol=http;AccountName={name};AccountKey={key};BlobEndpoint={url}/{name};"

    def _what(self, handler):
        path, _, query = handler.path.partition("?")
        path = unquote(path).removeprefix(f"/{self.account}")
        return ("LIST", f"{path.rstrip('/')}/?list") if "comp=list" in query else (handler.command, path)


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
