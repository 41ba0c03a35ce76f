"""The look at a queue that the start could not make, because SQS was away: tried until it is back."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

from bridge.aws_errors import error_code
from bridge.errors import SettingsError
from bridge.log import get_logger
from bridge.queues import Queue, look_up

log = get_logger(__name__)


def look_up_when_reachable(
    client: Any,
    queue: Queue,
    dlq_url: str | None,
    *,
    closed: Callable[[], bool],
    found: Callable[[Queue], None],
    refused: Callable[[], None],
) -> None:
    """Look the queue up in a thread of its own, as long as it takes, and hand it to ``found``.

    ``refused`` is called instead for what a person has to mend; ``closed`` says that the worker is leaving.
    """

    def run() -> None:
        while not closed():
            try:
                looked_up = look_up(client, queue, dlq_url)
            except SettingsError as error:
                log.critical("worker_refused", error=str(error))
                refused()
                return
            except Exception as error:  # noqa: BLE001 - network errors, throttling, 5xx: what may pass
                log.warning("sqs_unreachable", queue=queue.name, error_type=error_code(error), error=str(error))
                time.sleep(random.uniform(1.0, 3.0))  # noqa: S311 - spreads retries, is no secret
                continue
            found(looked_up)
            return

    threading.Thread(target=run, name="bridge-look-up", daemon=True).start()
