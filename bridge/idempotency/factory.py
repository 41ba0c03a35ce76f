"""Open the store of ``BRIDGE_IDEMPOTENCY_URL``. Each kind is imported on use, so a worker loads the SDK of one."""

from __future__ import annotations

from urllib.parse import urlsplit

from bridge.idempotency.store import Store


def open_store(url: str, region: str | None) -> Store:
    """Return the store of ``s3://bucket/prefix`` or ``dynamodb://table``, without making a call yet."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from bridge.idempotency.s3_store import S3Store

        return S3Store(parts.netloc, parts.path.strip("/"), region)
    from bridge.idempotency.dynamodb_store import DynamoDBStore

    return DynamoDBStore(parts.netloc, region)
