"""Stock Celery on SQS and on Redis: prefork.

- SQS, defaults: nothing set but the queue.
- SQS, ``polling_interval`` 0: the transport's documentation describes it as the pause between polls
  (https://docs.celeryq.dev/projects/kombu/en/stable/reference/kombu.transport.SQS.html); prefetch multiplier 64, which
  is what https://docs.celeryq.dev/en/stable/userguide/optimizing.html#prefetch-limits says of many short tasks ("50 or
  150 might make sense", "say 64, or 128").
- Redis: prefetch multiplier 64 for the same reason. Redis needs no polling.

Both acknowledge early, as Celery does by default: an SQS message is deleted when its task *starts*.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable

from benchmarks.peers.installing import python_environment, python_versions
from benchmarks.peers.place import Command, Place

DEFAULTS: dict[str, object] = {}
NO_PAUSE: dict[str, object] = {"polling_interval": 0}
PREFETCH_FOR_SHORT_TASKS = 64
#: As many as our own worker gets; with the defaults there is one for each core.
PROCESSES = 2

_BODY = base64.b64encode(b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]').decode()


def prepare() -> None:
    """Install Celery with what it needs for SQS and Redis."""
    python_environment("celery")


def versions_on_sqs() -> dict[str, str]:
    """What it runs on."""
    return python_versions("celery", "celery", "kombu", "boto3", "pycurl")


def versions_on_redis() -> dict[str, str]:
    """What it runs on."""
    return python_versions("celery", "celery", "kombu", "redis")


def on_sqs(prefetch: int | None, options: dict[str, object]) -> Callable[[Place, str], Command]:
    """Return what starts a worker on SQS; ``prefetch`` None leaves Celery's default of 4."""

    def command(place: Place, workload: str) -> Command:
        more = {"BENCH_BROKER": "sqs://", "BENCH_TRANSPORT_OPTIONS": json.dumps({"region": "us-east-1", **options})}
        return Command(_argv(prefetch), place.environment(**more))

    return command


def on_redis(prefetch: int) -> Callable[[Place, str], Command]:
    """Return what starts a worker on Redis."""

    def command(place: Place, workload: str) -> Command:
        return Command(_argv(prefetch), place.environment(BENCH_BROKER=place.redis_url))

    return command


def message(workload: str, number: int) -> str:
    """Return what Celery puts into a Redis list for one call, in protocol 2.

    Source: https://docs.celeryq.dev/en/stable/internals/protocol.html, and what Celery 5.7 was seen to send.
    """
    task_id = str(uuid.UUID(int=number + (1 << 80)))
    headers = {
        "lang": "py",
        "task": f"bench.{workload}",
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": "{}",
        "origin": "gen1@bench",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }
    properties = {
        "correlation_id": task_id,
        "reply_to": str(uuid.UUID(int=1)),
        "delivery_mode": 2,
        "delivery_info": {"exchange": "", "routing_key": "bench"},
        "priority": 0,
        "body_encoding": "base64",
        "delivery_tag": task_id,
    }
    whole = {
        "body": _BODY,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": properties,
    }
    return json.dumps(whole)


def message_on_sqs(workload: str, number: int) -> str:
    """Return the same as an SQS body: Kombu writes it in base64."""
    return base64.b64encode(message(workload, number).encode()).decode()


def _argv(prefetch: int | None) -> list[str]:
    argv = [str(python_environment("celery")), "-m", "celery", "-A", "celery_app", "worker", "-l", "WARNING"]
    return argv if prefetch is None else [*argv, "-c", str(PROCESSES), "--prefetch-multiplier", str(prefetch)]
