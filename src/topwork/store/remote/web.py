"""Web servers through fsspec: a file, or a folder whose page links to its files. One try each; errors are raw.

https://USER:PASSWORD@HOST/ is taken out of sight.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable
from typing import IO, Any
from urllib.parse import quote, unquote, urljoin, urlsplit

from topwork.errors import BadSetting
from topwork.store.database import hidden
from topwork.store.remote.files import CONNECT_SECONDS, READ_SECONDS, Broken, Facts, Files, Listed, Page, of_base64

PAGE_BYTES = 50_000_000  # of a web page that lists files
DEPTH = 32  # folders below each other on a web server


class Web(Files):
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
        """Of one file."""

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
        """Append what `sink` has not yet."""
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
        """The links of a page; deep: one folder at a time, the others wait in the mark."""
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


def _of_headers(answer: Any, offset: int = 0) -> Facts:
    headers = answer.headers
    length = headers.get("Content-Length", "")
    size = int(length) + offset if length.isdigit() and "Content-Encoding" not in headers else None
    version = headers.get("ETag") or headers.get("Last-Modified") or ""
    md5 = "" if offset or answer.status == 206 else of_base64(headers.get("Content-MD5", ""))
    return Facts(size, version, md5)


def http_address(url: str) -> str:
    """An address as it is sent: blanks and letters beyond ASCII are quoted, what is quoted already is not."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadSetting(f"{hidden(url)} is not an address: {error}") from error
    return parts._replace(path=quote(parts.path, safe="/%:@!$&'()*+,;=~")).geturl()
