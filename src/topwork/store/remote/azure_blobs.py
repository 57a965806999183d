"""Azure Blob Storage through adlfs: az://CONTAINER/KEY. Pages of a thousand names, one try each; errors are raw.

The account and its key as Azure's tools take them: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME with
AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or a login (AZURE_STORAGE_ANON=false).
"""

from __future__ import annotations

from typing import IO, Any

from topwork.store.remote.files import CONNECT_SECONDS, PAGE_KEYS, READ_SECONDS, Broken, Facts, Files, Listed, Page

_ONCE = {"retry_total": 0, "connection_timeout": CONNECT_SECONDS, "read_timeout": READ_SECONDS}


class AzureBlobs(Files):
    """Containers: nothing is kept of them but names, sizes, etags and MD5 sums."""

    def __init__(self, fsspec: Any) -> None:
        super().__init__(fsspec, "az")

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:
        """A page of a listing."""
        container, _, prefix = address.partition("/")
        prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        asked = {"name_starts_with": prefix or None, "results_per_page": PAGE_KEYS, "include": ["metadata"], **_ONCE}

        async def ask() -> tuple[list[Any], str | None]:
            async with self.files.service_client.get_container_client(container) as client:
                found = client.list_blobs(**asked) if deep else client.walk_blobs(delimiter="/", **asked)
                pages: Any = found.by_page(mark)
                async for page in pages:
                    return [entry async for entry in page], pages.continuation_token
                return [], None

        entries, following = self._ask(ask)
        files: list[Listed] = []
        folders: list[str] = []
        for entry in entries:
            name = entry.name[len(prefix) :]
            if hasattr(entry, "prefix"):
                folders.append(name.rstrip("/"))
            elif name and not name.endswith("/") and not (entry.metadata or {}).get("hdi_isfolder"):
                files.append(Listed(name, "", _facts(entry)))
        return files, folders, following or None

    def facts(self, address: str) -> Facts:
        """Of one file."""
        container, _, key = address.partition("/")
        if not key:
            raise FileNotFoundError(address)

        async def ask() -> Any:
            async with self.files.service_client.get_blob_client(container, key) as client:
                return await client.get_blob_properties(**_ONCE)

        return _facts(self._ask(ask))

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        """Append what `sink` has not yet."""
        facts = facts or self.facts(address)
        if facts.size is not None:
            return super().get(address, facts, sink, most)
        sink.truncate(sink.seek(0))
        sink.write(self._bytes(address, facts, None, None))
        return facts

    def _bytes(self, address: str, facts: Facts, start: int | None, end: int | None) -> bytes:
        from azure.core import MatchConditions  # type: ignore[reportMissingImports]

        container, _, key = address.partition("/")
        part = {} if start is None or end is None else {"offset": start, "length": end - start}
        same = {"etag": facts.version, "match_condition": MatchConditions.IfNotModified} if facts.version else {}

        async def ask() -> bytes:
            async with self.files.service_client.get_blob_client(container, key) as client:
                return await (await client.download_blob(**part, **same, **_ONCE)).readall()

        return self._ask(ask)

    def _ask(self, ask: Any) -> Any:
        from azure.core.exceptions import ResourceModifiedError  # type: ignore[reportMissingImports]
        from fsspec.asyn import sync

        try:
            return sync(self.files.loop, ask)
        except ResourceModifiedError:
            raise Broken("it has changed since it was listed") from None


def _facts(entry: Any) -> Facts:
    settings = entry.content_settings
    if settings.content_encoding:
        return Facts(None, entry.etag)
    md5 = bytes(settings.content_md5 or b"").hex()
    return Facts(entry.size, entry.etag, md5 if len(md5) == 32 else "")
