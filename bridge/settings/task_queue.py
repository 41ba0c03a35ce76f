"""The task queue's settings for ``.delay()``, loaded on first use and again only when they change.

Loading may open the AWS profile, which takes about 20 ms: too long for every message that a web process sends.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.settings.loading import TaskQueueSettings

_NAMES = (
    "SQS_TASK_QUEUE_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
)


def task_queue_settings() -> TaskQueueSettings:
    """Return the settings of a process that sends Celery messages; raises SettingsError when they are invalid."""
    return _load(tuple(os.environ.get(name, "") for name in _NAMES))


@lru_cache(maxsize=4)
def _load(_: tuple[str, ...]) -> TaskQueueSettings:
    from bridge.settings.loading import (
        load_task_queue_settings,  # imported here: pydantic takes 0.1 s to import, and a task module needs none
    )

    return load_task_queue_settings(os.environ)
