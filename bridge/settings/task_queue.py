"""Where ``.delay()`` sends: the task queue's settings, read on first use and again only when they change.

Reading them may open the AWS profile (about 20 ms), which is too much for every message a web process sends.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.settings.loading import TaskQueueSettings

_NAMES = ("SQS_TASK_QUEUE_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_DEFAULT_PROFILE")


def task_queue_settings() -> TaskQueueSettings:
    """Return the settings of a process that sends; raises SettingsError when they are at fault."""
    return _load(tuple(os.environ.get(name, "") for name in _NAMES))


@lru_cache(maxsize=4)
def _load(_: tuple[str, ...]) -> TaskQueueSettings:
    from bridge.settings.loading import (
        load_task_queue_settings,  # pydantic takes 0.1 s to import, and a task module needs none
    )

    return load_task_queue_settings(os.environ)
