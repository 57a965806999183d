"""Clients of remote endpoints by scheme, where their credentials come from, and where the environment says they lie.

s3://BUCKET/KEY    amazon_s3.py          http(s)://HOST/       web.py
gs://BUCKET/KEY    google_storage.py, with gcsfs               az://CONTAINER/KEY    azure_blobs.py, with adlfs
"""

from __future__ import annotations

import os

from topwork.errors import MissingExtra, StoreError
from topwork.store.database import hidden
from topwork.store.remote.files import Client, Files


def open_client(scheme: str, host: str, secret: tuple[str, str] | None = None) -> tuple[str, Client]:
    """A name for people and the client of a scheme and a host or bucket; nothing is asked yet."""
    try:
        import fsspec
    except ImportError as error:
        raise MissingExtra.of("remote", f"Reading {scheme}://") from error
    try:
        if scheme in ("http", "https"):
            from topwork.store.remote.web import Web

            return f"{scheme}://{host}", Web(fsspec, secret)
        if scheme == "s3":
            from topwork.store.remote.amazon_s3 import AmazonS3

            return f"{hidden(os.environ.get('AWS_ENDPOINT_URL') or 's3')} (bucket {host})", AmazonS3(fsspec, secret)
        if scheme == "gs":
            from topwork.store.remote.google_storage import GoogleStorage

            return f"{hidden(os.environ.get('STORAGE_EMULATOR_HOST') or 'gs')} (bucket {host})", GoogleStorage(fsspec)
        if scheme in ("az", "abfs"):
            from topwork.store.remote.azure_blobs import AzureBlobs

            return f"{scheme} (container {host})", AzureBlobs(fsspec)
        return f"{scheme}://{host}", Files(fsspec, scheme)
    except ImportError as error:
        if scheme in ("s3", "http", "https"):
            raise MissingExtra.of("remote", f"Reading {scheme}://") from error
        package = {"gs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}.get(scheme, "more")
        raise MissingExtra(f"Reading {scheme}:// needs the package {package}: pip install {package}") from error
    except Exception as error:  # e.g. AWS_PROFILE names a profile that is not there
        why = str(error).rstrip("!. ")
        raise StoreError(f"{scheme}://{host} cannot be opened: {why}. {where_from(f'{scheme}://')}") from error


def endpoint_of(scheme: str) -> str:
    """Where the environment says that the buckets of a scheme lie: another place, other files. Holds no key."""
    if scheme == "s3":
        return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    if scheme == "gs":
        return os.environ.get("STORAGE_EMULATOR_HOST", "")
    if scheme in ("az", "abfs"):
        parts = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "").split(";")
        told = [p for p in parts if p.partition("=")[0] in ("AccountName", "BlobEndpoint", "EndpointSuffix")]
        return ";".join(told) or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
    return ""


def where_from(what: str) -> str:
    """Where credentials of an address come from, in a sentence."""
    scheme = what.partition("://")[0]
    told = {
        "s3": "AWS_ACCESS_KEY_ID ...", "gs": "GOOGLE_APPLICATION_CREDENTIALS, or the login of gcloud",
        "az": "AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT_NAME ...",
    }  # fmt: skip
    told["abfs"] = told["az"]
    return f"Credentials come from the environment: {told[scheme]}" if scheme in told else "Look to the address"
