"""What a Kubernetes Job says of itself and of the message it came from. Pure: the API's JSON in, facts out."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from bridge.kubernetes.job_manifest import (
    ATTRIBUTES_ANNOTATION,
    MESSAGE_ID_ANNOTATION,
    QUEUE_URL_ANNOTATION,
    TASK_ANNOTATION,
    TASK_URL_ANNOTATION,
)

Status = Literal["running", "completed", "failed"]


@dataclass(frozen=True, slots=True)
class LaunchedJob:
    """A Job that has a message; ``body`` is None where ``task_url`` says where it lies. Times are in UTC.

    ``message_attributes`` is the annotation's JSON text. A Job of the seed's queue-watcher has a body and nothing else.
    """

    name: str
    uid: str
    status: Status
    command: tuple[str, ...]
    created_at: datetime | None
    ended_at: datetime | None
    message_id: str | None
    queue_url: str | None
    body: str | None
    task_url: str | None
    message_attributes: str | None
    being_deleted: bool


def launched_job(job: Mapping[str, Any]) -> LaunchedJob | None:
    """Return the facts of a Job, as the API's JSON has it; None for one that came from no message."""
    metadata, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    annotations = metadata.get("annotations") or {}
    if TASK_ANNOTATION not in annotations and TASK_URL_ANNOTATION not in annotations:
        return None
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or [{}]
    conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    end = conditions.get("Complete") or conditions.get("Failed")
    ended_at = status.get("completionTime") or (end or {}).get("lastTransitionTime") if end else None
    return LaunchedJob(
        name=metadata["name"],
        uid=metadata["uid"],
        status="completed" if "Complete" in conditions else "failed" if "Failed" in conditions else "running",
        command=(*(containers[0].get("command") or ()), *(containers[0].get("args") or ())),
        created_at=_time(metadata.get("creationTimestamp")),
        ended_at=_time(ended_at),
        message_id=annotations.get(MESSAGE_ID_ANNOTATION),
        queue_url=annotations.get(QUEUE_URL_ANNOTATION),
        body=annotations.get(TASK_ANNOTATION),
        task_url=annotations.get(TASK_URL_ANNOTATION),
        message_attributes=annotations.get(ATTRIBUTES_ANNOTATION),
        being_deleted=metadata.get("deletionTimestamp") is not None,
    )


def sendable_attributes(text: str | None) -> dict[str, dict[str, Any]]:
    """Return message attributes as SendMessage takes them; raises ValueError for a foreign text."""
    found = json.loads(text or "{}")
    if not isinstance(found, dict) or not all(isinstance(value, dict) for value in found.values()):
        raise ValueError("the message attributes are not as tasks.launch_job writes them")
    return {
        name: {**value, "BinaryValue": base64.b64decode(value["BinaryValue"])} if "BinaryValue" in value else value
        for name, value in found.items()
    }


def _time(text: Any) -> datetime | None:
    return datetime.fromisoformat(text) if isinstance(text, str) else None
