"""A module of tasks with nothing wrong."""

from __future__ import annotations

from bridge import Message, S3Object, file_task, message_task


@file_task("incoming/*.csv", bucket="uploads-*")
def import_csv(obj: S3Object) -> str:
    """Take CSV files."""
    return obj.key


@message_task(where={"kind": "report-*"})
def report(msg: Message) -> str:
    """Take messages of one kind."""
    return msg.id
