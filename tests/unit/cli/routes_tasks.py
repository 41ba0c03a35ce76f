"""Tasks for the tests of ``brigade routes``."""

from __future__ import annotations

from typing import Any

from bridge import Message, S3Object, file_task, message_task


@file_task("incoming/*.csv", bucket="uploads-*")
def csv(obj: S3Object) -> None:
    """Take CSV files."""


@file_task("incoming/*", max_bytes=10)
def small(obj: S3Object) -> Any:
    """Take anything small."""


@message_task({"kind": "order-*"})
def order(msg: Message) -> None:
    """Take orders."""
