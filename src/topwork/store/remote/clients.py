"""Remote endpoints through fsspec: a page of a listing, facts of a file, its bytes. One try each; errors are raw.

s3://BUCKET/KEY    credentials, region and endpoint as AWS tools take them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
                   AWS_SESSION_TOKEN, AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL (MinIO and others). Without
                   credentials requests are not signed, as public buckets want it; FSSPEC_S3_ANON=true forces that
http(s)://HOST/    a file, or a folder whose page links to its files; https://USER:PASSWORD@HOST/ is taken out of sight
gs:// az:// ...    whatever fsspec has a package for (gcsfs, adlfs), with the settings of that package
"""

from __future__ import annotations

import base64
import binascii
import html
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, Protocol
from urllib.parse import quote, unquote, urljoin, urlsplit

from topwork.errors import BadSetting, MissingExtra, StoreError
from topwork.store.database import hidden

CONNECT_SECONDS, READ_SECONDS = 4.0, 15.0  # to reach a server; between two packets of an answer
BLOCK = 16 * 2**20  # bytes of one request
CONNECTIONS = 24
PAGE_BYTES = 50_000_000  # of a web page that lists files
PAGE_KEYS = 1000  # of a listing: as many as S3 gives at once
DEPTH = 32  # folders below each other on a web server
ETAG = "etag"
_MD5 = re.compile(r"[0-9a-f]{32}")


class Broken(OSError):
    """What came is not what the server said it would be."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a remote file without its bytes."""

    size: int | None
    version: str  # etag, generation or time: another version, another text
    told: str = ""  # MD5 as 32 hex digits where the server tells it, or ETAG: the version is it

    @property
    def md5(self) -> str:
        """MD5 of the content as 32 hex digits; "": not known."""
        return self.version.strip('"').lower() if self.told == ETAG else self.told


@dataclass(frozen=True, slots=True)
class Listed:
    """A file below a folder; facts are None where the listing does not tell them."""

    name: str  # relative, parts divided by /
    address: str  # "": that of the folder and the name
    facts: Facts | None


Page = tuple[list[Listed], list[str], Any]
"""Files, folders, and the mark of the next page: None where this is the last."""


class Client(Protocol):
    """One endpoint. Calls block; several threads may call at once. Errors are raw: `patiently` sorts them."""

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:
        """Files below a folder and, unless deep, the names of its folders; the mark leads to the next page."""
        ...

    def facts(self, address: str) -> Facts:
        """Of one file."""
        ...

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        """Append what `sink` has not yet; at most so many bytes in all; facts as the answer tells them."""
        ...


def open_client(scheme: str, host: str, secret: tuple[str, str] | None = None) -> tuple[str, Client]:
    """A name for people and the client of a scheme and a host or bucket; nothing is asked yet."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra.of("remote", f"Reading {scheme}://") from error
    try:
        if scheme in ("http", "https"):
            return f"{scheme}://{host}", _Http(fsspec, secret)
        if scheme == "s3":
            return f"{hidden(os.environ.get('AWS_ENDPOINT_URL') or 's3')} (bucket {host})", _S3(fsspec, secret)
        if scheme == "gs":  # else gcsfs asks for the kind of every bucket by gRPC, for up to a minute
            os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        return f"{scheme}://{host}", _Files(fsspec, scheme)
    except ImportError as error:
        if scheme in ("s3", "http", "https"):
            raise MissingExtra.of("remote", f"Reading {scheme}://") from error
        package = {"gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}.get(scheme, "more")
        raise MissingExtra(f"Reading {scheme}:// needs the package {package}: pip install {package}") from error
    except Exception as error:  # e.g. AWS_PROFILE names a profile that is not there
        raise StoreError(f"{scheme}://{host} cannot be opened: {error}") from error


class _Files:
    """Any file system of fsspec."""

    def __init__(self, fsspec: Any, scheme: str, **options: Any) -> None:
        self.files = fsspec.filesystem(scheme, use_listings_cache=False, skip_instance_cache=True, **options)

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:  # noqa: ARG002 all at once
        self.files.invalidate_cache()
        root = address.strip("/")
        if deep:
            found = self.files.find(address, detail=True)
            entries = found.values() if isinstance(found, dict) else found
        else:
            entries = self.files.ls(address, detail=True)
        files: list[Listed] = []
        folders: list[str] = []
        for entry in entries:
            whole = entry["name"].strip("/")
            if not whole.startswith(f"{root}/"):
                continue
            name = whole[len(root) + 1 :]
            if entry["type"] == "directory":
                folders.append(name)
            else:
                files.append(Listed(name, entry["name"], _facts_of(entry)))
        return files, folders, None

    def facts(self, address: str) -> Facts:
        entry = self.files.info(address)
        if entry["type"] == "directory":
            raise FileNotFoundError(address)
        return _facts_of(entry)

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        facts = facts or self.facts(address)
        size = facts.size
        if size is None:
            raise Broken("its length is not known")
        if size > most:
            return facts
        while (at := sink.tell()) < size:
            whole = at == 0 and size <= BLOCK
            data = self.files.cat_file(address, **({} if whole else {"start": at, "end": min(size, at + BLOCK)}))
            if len(data) != (size if whole else min(size, at + BLOCK) - at):
                raise Broken(f"{at + len(data):,} of {size:,} bytes came")
            sink.write(data)
            if not whole and not isinstance(sink, io.BytesIO):  # it outlives us: the next process goes on behind it
                sink.flush()
                os.fsync(sink.fileno())
        return facts


class _S3(_Files):
    """Buckets: pages of a thousand keys, and nothing kept of them but names, sizes and etags."""

    def __init__(self, fsspec: Any, secret: tuple[str, str] | None) -> None:
        import botocore.session

        known = secret or botocore.session.get_session().get_credentials()
        options: dict[str, Any] = {} if known else {"anon": True}
        if secret:
            options = {"key": secret[0], "secret": secret[1]}
        config = {
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": READ_SECONDS,
            "max_pool_connections": CONNECTIONS,
            "retries": {"max_attempts": 0},
        }
        # max_concurrency: s3fs would ask for the size of every file before it fetches it
        super().__init__(fsspec, "s3", config_kwargs=config, max_concurrency=1, **options)
        self.files.retries = 1  # `patiently` does that

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:
        from fsspec.asyn import sync

        bucket, _, prefix = address.partition("/")
        prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        asked: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": PAGE_KEYS} | (
            {} if deep else {"Delimiter": "/"}
        )
        asked |= {"ContinuationToken": mark} if mark else {}
        client: Any = self.files.connect()

        async def ask() -> Any:
            return await client.list_objects_v2(**asked)

        answer: Any = sync(self.files.loop, ask)
        files = [
            Listed(
                entry["Key"][len(prefix) :],
                "",
                _of_etag(entry["Size"], entry.get("ETag", ""), entry.get("LastModified")),
            )
            for entry in answer.get("Contents", ())
            if entry["Key"] != prefix and not entry["Key"].endswith("/")  # marks of empty folders
        ]
        folders = [p["Prefix"][len(prefix) :].rstrip("/") for p in answer.get("CommonPrefixes", ())]
        return files, folders, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None


class _Http(_Files):
    """Web servers, by fsspec's client; a page of links is a folder."""

    def __init__(self, fsspec: Any, secret: tuple[str, str] | None) -> None:
        import aiohttp

        wait = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        super().__init__(fsspec, "http", client_kwargs={"timeout": wait})
        login = base64.b64encode(":".join(secret or ()).encode()).decode()
        self._login = {"Authorization": f"Basic {login}"} if secret else {}  # aiohttp keeps it from other hosts
        self._closed_to_head = False

    def _ask(self, method: str, url: str, take: Callable[[Any], Any], **headers: str) -> Any:
        from fsspec.asyn import sync

        headers |= {"Accept-Encoding": "identity", **self._login}  # lengths are those of the file

        async def ask() -> Any:
            session = await self.files.set_session()
            target = self.files.encode_url(url)
            async with session.request(method, target, headers=headers, allow_redirects=True) as answer:
                if answer.status in (404, 410):
                    raise FileNotFoundError(url)
                if answer.status != 416:
                    answer.raise_for_status()
                return await take(answer)

        return sync(self.files.loop, ask)

    def facts(self, address: str) -> Facts:
        async def told(answer: Any) -> Facts:
            return _of_headers(answer)

        if not self._closed_to_head:
            try:
                return self._ask("HEAD", address, told)
            except FileNotFoundError:
                raise
            except Exception as error:
                if getattr(error, "status", 0) not in (400, 403, 405, 501):
                    raise
        facts = self._ask("GET", address, told)
        self._closed_to_head = True
        return facts

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        have = sink.tell()
        if have and (facts is None or not facts.version.startswith('"')):  # nothing names the version: begin anew
            sink.truncate(have := sink.seek(0))
        if facts is not None and have and have == facts.size:
            return facts

        async def taken(answer: Any) -> Facts:
            at = have
            if answer.status != 206 and at:
                sink.truncate(at := sink.seek(0))
            told = _of_headers(answer, at if answer.status == 206 else 0)
            if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {at}-"):
                raise Broken("another part came than was asked for")
            if told.size is not None and told.size > most:
                return told
            async for chunk in answer.content.iter_chunked(1 << 18):
                at += len(chunk)
                if at > most:
                    return Facts(at, told.version)
                sink.write(chunk)
            if told.size is not None and at != told.size:
                raise Broken(f"{at:,} of {told.size:,} bytes came")
            return told

        headers = {"Range": f"bytes={have}-", "If-Range": facts.version} if facts is not None and have else {}
        return self._ask("GET", address, taken, **headers)

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:
        inner, *waiting = mark or [""]
        base = f"{address.rstrip('/')}/{inner}"
        files, folders = self._links(base)
        listed = [Listed(unquote(inner + name), base + name, None) for name in files]
        if not deep:
            return listed, [unquote(name).rstrip("/") for name in folders], None
        below = [inner + name for name in folders] if inner.count("/") < DEPTH else []
        return listed, [], [*waiting, *below] or None

    def _links(self, base: str) -> tuple[list[str], list[str]]:
        """Files and folders (they end in /) directly below an address, as its page links to them."""

        async def page(answer: Any) -> tuple[str, str]:
            if "html" not in answer.headers.get("Content-Type", "text/html"):
                raise NotADirectoryError(base)
            data = await answer.content.read(1)
            while len(data) < PAGE_BYTES and (more := await answer.content.read(1 << 16)):
                data += more
            return str(answer.url), data.decode(answer.charset or "utf-8", "replace")

        url, text = self._ask("GET", base, page)
        files: dict[str, None] = {}
        folders: dict[str, None] = {}
        root = url if url.endswith("/") else url + "/"
        for link in re.findall(r"""<a\s[^>]*?href\s*=\s*["']?([^"'\s>]+)""", text, re.IGNORECASE):
            target = urljoin(root, html.unescape(link))
            if not target.startswith(root) or target == root:
                continue
            name = target[len(root) :]
            if "?" in name or "#" in name or "/" in name[:-1]:
                continue
            (folders if name.endswith("/") else files)[name] = None
        return list(files), list(folders)


def _facts_of(entry: dict[str, Any]) -> Facts:
    """From fsspec's description of a file."""
    size = entry.get("size")
    etag = entry.get("ETag") or entry.get("etag") or entry.get("generation")
    when = entry.get("LastModified") or entry.get("mtime") or entry.get("updated") or entry.get("created")
    facts = _of_etag(size, str(etag or ""), when)
    if entry.get("md5Hash"):
        return Facts(size, facts.version, _of_base64(entry["md5Hash"]))
    return facts if "ETag" in entry else Facts(size, facts.version)


def _of_etag(size: int | None, etag: str, when: Any) -> Facts:
    """An S3 etag is the MD5 of the content, but for objects written in parts (it has a dash) or encrypted by KMS."""
    bare = etag.strip('"').lower()
    return Facts(size, etag or str(when or ""), ETAG if _MD5.fullmatch(bare) else "")


def _of_headers(answer: Any, offset: int = 0) -> Facts:
    headers = answer.headers
    length = headers.get("Content-Length", "")
    size = int(length) + offset if length.isdigit() and "Content-Encoding" not in headers else None
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    md5 = "" if offset or answer.status == 206 else _of_base64(headers.get("Content-MD5", ""))
    return Facts(size, version, md5)


def _of_base64(text: str) -> str:
    try:
        digest = base64.b64decode(text, validate=True).hex()
    except (binascii.Error, ValueError):
        return ""
    return digest if len(digest) == 32 else ""


def http_address(url: str) -> str:
    """An address as it is sent: blanks and letters beyond ASCII are quoted, what is quoted already is not."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadSetting(f"{hidden(url)} is not an address: {error}") from error
    return parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~")).geturl()
