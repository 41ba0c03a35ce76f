"""Bucket Brigade: an S3 event lands in SQS, and a Celery worker runs it as an ordinary Celery task."""

from __future__ import annotations

from bridge.decorators import file_task, message_task
from bridge.errors import ObjectChanged, ObjectGone
from bridge.message import Message
from bridge.s3_object import S3Object

__all__ = ["Message", "ObjectChanged", "ObjectGone", "S3Object", "file_task", "message_task"]
