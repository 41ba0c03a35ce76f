"""Bucket Brigade: an S3 event lands in SQS, and a Celery worker runs it as an ordinary Celery task.

The public names are imported on first use. A process that merely has the package installed (for example a pytest run
of another project, which loads the pytest plugin) therefore creates no Celery app.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bridge.errors import ClaimLost, ObjectChanged, ObjectGone, StoreUnavailable
    from bridge.messages.message import Message
    from bridge.s3.object import S3Object
    from bridge.task.decorators import file_task, message_task

__all__ = [
    "ClaimLost",
    "Message",
    "ObjectChanged",
    "ObjectGone",
    "S3Object",
    "StoreUnavailable",
    "file_task",
    "message_task",
]

_MODULES = {
    "ClaimLost": "bridge.errors",
    "Message": "bridge.messages.message",
    "ObjectChanged": "bridge.errors",
    "ObjectGone": "bridge.errors",
    "S3Object": "bridge.s3.object",
    "StoreUnavailable": "bridge.errors",
    "file_task": "bridge.task.decorators",
    "message_task": "bridge.task.decorators",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
