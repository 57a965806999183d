"""Google Cloud Storage through gcsfs: gs://BUCKET/KEY. Pages of a thousand names, one try each; errors are raw.

Credentials as Google's tools take them: GOOGLE_APPLICATION_CREDENTIALS, the login of gcloud, the account of the
machine; without any, requests are not signed, as public buckets want it. STORAGE_EMULATOR_HOST=http://HOST:PORT names
another server, which is asked unsigned where no key is named. Objects that are stored gzip-encoded come decoded: their
length and MD5 are told of the packed bytes and are not compared.
"""

from __future__ import annotations

import logging
import os
import types
from typing import IO, Any

from topwork.store.remote.files import (
    CONNECT_SECONDS,
    PAGE_KEYS,
    READ_SECONDS,
    Broken,
    Facts,
    Files,
    Listed,
    Page,
    of_base64,
)  # fmt: skip

_FIELDS = "name,size,etag,md5Hash,contentEncoding"


class GoogleStorage(Files):
    """Buckets: nothing is kept of them but names, sizes, etags and MD5 sums."""

    def __init__(self, fsspec: Any) -> None:
        import aiohttp

        # else gcsfs asks for the kind of every bucket by gRPC, for up to a minute
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        for name in ("GCE_METADATA_DETECT_RETRIES", "GCE_METADATA_TIMEOUT"):  # else a machine that is none of Google's
            os.environ.setdefault(name, "1")  # looks for its account for seconds
        logging.getLogger("gcsfs").addHandler(logging.NullHandler())  # it logs a traceback for each failed request
        wait = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        if any("token" in fsspec.config.conf.get(name, {}) for name in ("gs", "gcs")):
            super().__init__(fsspec, "gs", requests_timeout=wait)
        elif not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") and os.environ.get("STORAGE_EMULATOR_HOST"):
            super().__init__(fsspec, "gs", requests_timeout=wait, token="anon")
        else:
            try:
                super().__init__(fsspec, "gs", requests_timeout=wait, token="google_default")
            except Exception as error:  # gcsfs by itself would ask for the machine's account once more, for 15 seconds
                named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
                if named or type(error).__name__ != "DefaultCredentialsError":
                    raise  # a key that cannot be read is not passed over
                super().__init__(fsspec, "gs", requests_timeout=wait, token="anon")
        once = getattr(type(self.files)._request, "__wrapped__", None)
        if once is not None:  # without the six tries of gcsfs: `patiently` does that
            self.files._request = types.MethodType(once, self.files)

    def page(self, address: str, deep: bool, mark: Any = None) -> Page:
        """A page of a listing."""
        bucket, _, prefix = address.partition("/")
        prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        asked: dict[str, Any] = {
            "maxResults": PAGE_KEYS, "fields": f"nextPageToken,prefixes,items({_FIELDS})", "prefix": prefix or None,
            "delimiter": None if deep else "/", "pageToken": mark,
        }  # fmt: skip
        answer = self._ask("b/{}/o", bucket, json_out=True, **{name: v for name, v in asked.items() if v is not None})
        files = [
            Listed(entry["name"][len(prefix) :], "", _facts(entry))
            for entry in answer.get("items", ())
            if entry["name"] != prefix and not entry["name"].endswith("/")  # marks of empty folders
        ]
        folders = [name[len(prefix) :].rstrip("/") for name in answer.get("prefixes", ())]
        return files, folders, answer.get("nextPageToken")

    def facts(self, address: str) -> Facts:
        """Of one file."""
        bucket, _, key = address.partition("/")
        if not key:
            raise FileNotFoundError(address)
        return _facts(self._ask("b/{}/o/{}", bucket, key, json_out=True, fields=_FIELDS))

    def get(self, address: str, facts: Facts | None, sink: IO[bytes], most: int) -> Facts:
        """Append what `sink` has not yet."""
        facts = facts or self.facts(address)
        if facts.size is not None:
            return super().get(address, facts, sink, most)
        sink.truncate(sink.seek(0))
        sink.write(self._bytes(address, facts, None, None))
        return facts

    def _bytes(self, address: str, facts: Facts, start: int | None, end: int | None) -> bytes:  # noqa: ARG002
        bucket, _, key = address.partition("/")
        headers = {} if start is None or end is None else {"Range": f"bytes={start}-{end - 1}"}
        return self._ask("b/{}/o/{}", bucket, key, alt="media", headers=headers)[1]

    def _ask(self, path: str, *names: str, **more: Any) -> Any:
        """One request; what gcsfs calls an error of the system by the name that it has."""
        try:
            return self.files.call("GET", path, *names, **more)
        except FileNotFoundError:
            raise
        except OSError as error:
            if str(error).startswith("Forbidden"):
                raise PermissionError("status 403") from None
            if type(error).__name__ == "ProxyError":
                raise Broken("status 502") from None
            raise


def _facts(entry: dict[str, Any]) -> Facts:
    packed = bool(entry.get("contentEncoding"))
    etag = entry.get("etag") or ""
    return (
        Facts(None, etag) if packed else Facts(int(entry.get("size", 0)), etag, of_base64(entry.get("md5Hash") or ""))
    )
