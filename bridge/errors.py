"""Every error of the bridge that a user may see, raise or catch.

Nothing of ours is imported here, so that every room may use it.
"""

from __future__ import annotations

import sys
from typing import NoReturn


class BridgeError(Exception):
    """Base of all errors that the bridge itself raises."""


class SettingsError(BridgeError):
    """A setting is missing, unknown or out of range.

    The text is one line fit for a terminal: it names the setting, the value and the rule.
    Commands print it and exit with code 2.
    """


class MalformedEvent(BridgeError, ValueError):  # noqa: N818 - the name is part of the public contract
    """A message body is not an S3 event that we can read; the text says where it goes wrong."""


class ObjectGone(BridgeError):  # noqa: N818 - the name is part of the public contract
    """The object announced by an event no longer exists.

    Never retried: the message is dead-lettered as ``object-gone``, or settled as ignored when the task
    was declared with ``missing_ok=True``.
    """


class ObjectChanged(BridgeError):  # noqa: N818 - the name is part of the public contract
    """The object was overwritten since its event was sent.

    The message is settled as ``ignored`` (reason ``superseded``): the new version has an event of its own.
    """


class ObjectTooLarge(BridgeError):  # noqa: N818 - as ObjectGone
    """The object is larger than the task's ``max_bytes``. Never retried: dead-lettered as ``too-large``."""


class NotEnoughDisk(BridgeError, OSError):  # noqa: N818 - says what is missing
    """There is no room for a download. An ordinary, retryable error: another worker, or later, may have room."""


class NoTaskQueue(BridgeError):  # noqa: N818 - says what is missing, as ObjectGone does
    """``.delay()`` or ``.apply_async()`` was called, and no ``SQS_TASK_QUEUE_URL`` is set to send to."""


class StoreUnavailable(BridgeError):  # noqa: N818 - says what is wrong, as ObjectGone does
    """The idempotency store cannot be reached, refuses us, or holds what we cannot read; the message waits in place."""


class ClaimLost(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """Another run has taken over this run's claim: its time was up. What this run still does would be done twice."""


class JobRefused(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """A message cannot become a Kubernetes Job, now or later. Never retried by ``tasks.launch_job``."""


class JobNotAccepted(BridgeError):  # noqa: N818 - as JobRefused
    """The Kubernetes API did not take or do what it was asked: away, busy, a quota used up, not allowed. Retried."""


class NoMonitorBus(BridgeError):  # noqa: N818 - says what is missing, as ObjectGone does
    """Workers were to be asked or told something, and no ``BRIDGE_MONITOR_URL`` is set to do it over."""


class TaskExited(BridgeError):  # noqa: N818 - says what happened, as ObjectGone does
    """The task called ``sys.exit()``, or ended itself with another BaseException; an ordinary, retryable error."""


def refuse(text: str) -> NoReturn:
    """End the process with one line on standard error and exit code 2: something that a person has to mend."""
    sys.stderr.write(f"bridge: {text}\n")
    sys.stderr.flush()
    raise SystemExit(2)
