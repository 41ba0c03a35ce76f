"""Every bridge error that a user may see, raise or catch.

This module imports nothing from the package, so every other module can import it.
"""

from __future__ import annotations

import sys
from typing import NoReturn


class BridgeError(Exception):
    """Base class of all errors that the bridge raises."""


class SettingsError(BridgeError):
    """A setting is missing, unknown or out of range.

    The text is one line that is safe to print to a terminal. It names the setting, its value and the rule.
    Commands print it and exit with code 2.
    """


class MalformedEvent(BridgeError, ValueError):  # noqa: N818 - the name is part of the public contract
    """A message body is not a valid S3 event; the text says what is wrong and where."""


class ObjectGone(BridgeError):  # noqa: N818 - the name is part of the public contract
    """The object that an event names no longer exists.

    The bridge never retries it. It dead-letters the message as ``object-gone``, or settles it as ``ignored`` when the
    task is declared with ``missing_ok=True``.
    """


class ObjectChanged(BridgeError):  # noqa: N818 - the name is part of the public contract
    """The object was overwritten after its event was sent.

    The message is settled as ``ignored`` (reason ``superseded``), because the new version has its own event.
    """


class ObjectTooLarge(BridgeError):  # noqa: N818 - as ObjectGone
    """The object is larger than the task's ``max_bytes``. Never retried; dead-lettered as ``too-large``."""


class NotEnoughDisk(BridgeError, OSError):  # noqa: N818 - says what is missing
    """The disk has too little free space for a download.

    An ordinary, retryable error: a later run, or a run on another worker, may have enough space.
    """


class NoTaskQueue(BridgeError):  # noqa: N818 - says what is missing, as ObjectGone does
    """``.delay()`` or ``.apply_async()`` was called, and ``SQS_TASK_QUEUE_URL`` is not set."""


class StoreUnavailable(BridgeError):  # noqa: N818 - says what is wrong, as ObjectGone does
    """The idempotency store is unreachable, denies access, or holds a record that cannot be read.

    The message stays in its queue and is received again later.
    """


class ClaimLost(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """Another run has taken over this run's claim, because the claim expired.

    The task should stop: the other run does the same work.
    """


class JobRefused(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """A message can never become a Kubernetes Job. ``tasks.launch_job`` does not retry it."""


class JobNotAccepted(BridgeError):  # noqa: N818 - as JobRefused
    """The Kubernetes API did not carry out a request: unreachable, busy, quota exceeded or not allowed. Retried."""


class NoMonitorBus(BridgeError):  # noqa: N818 - says what is missing, as ObjectGone does
    """A remote control command needs the monitor bus, and ``BRIDGE_MONITOR_URL`` is not set."""


class TaskExited(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """The task called ``sys.exit()`` or raised another BaseException. An ordinary, retryable error."""


def refuse(text: str) -> NoReturn:
    """Write one line to standard error and exit with code 2, for an error that must be corrected by a person."""
    sys.stderr.write(f"bridge: {text}\n")
    sys.stderr.flush()
    raise SystemExit(2)
