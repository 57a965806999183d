"""Amazon S3, MinIO and others through s3fs: s3://BUCKET/KEY. One try each; errors are raw.

Credentials, region and endpoint as AWS tools take them: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
AWS_PROFILE, AWS_DEFAULT_REGION, AWS_ENDPOINT_URL. Without credentials requests are not signed, as public buckets want
it; FSSPEC_S3_ANON=true forces that.
"""

from __future__ import annotations

from typing import Any

from topwork.store.remote.files import (
    CONNECT_SECONDS,
    CONNECTIONS,
    PAGE_KEYS,
    READ_SECONDS,
    Files,
    Listed,
    Page,
    of_etag,
)


class AmazonS3(Files):
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
        """A page of a listing."""
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
                of_etag(entry["Size"], entry.get("ETag", ""), entry.get("LastModified")),
            )
            for entry in answer.get("Contents", ())
            if entry["Key"] != prefix and not entry["Key"].endswith("/")  # marks of empty folders
        ]
        folders = [p["Prefix"][len(prefix) :].rstrip("/") for p in answer.get("CommonPrefixes", ())]
        return files, folders, answer.get("NextContinuationToken") if answer.get("IsTruncated") else None
