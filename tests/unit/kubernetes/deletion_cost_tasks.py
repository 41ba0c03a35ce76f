"""A task that runs until a file is there, in a worker that finds its service account where the test says."""

from __future__ import annotations

import os
import time
from pathlib import Path

import bridge.kubernetes.deletion_cost
from bridge import Message, message_task

bridge.kubernetes.deletion_cost.ACCOUNT = Path(os.environ["TEST_ACCOUNT"])


@message_task(everything=True)
def hold(message: Message) -> None:
    """Wait, whatever the message is."""
    while not Path(os.environ["TEST_GO_ON"]).exists():
        time.sleep(0.05)
