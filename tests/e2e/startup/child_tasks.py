"""Tasks that write down, in the folder of the worker, what they see of the process that runs them."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from celery import current_app, shared_task

from bridge import S3Object, file_task
from bridge.task.app import app
from bridge.task.registry import declared_routes


@file_task("children/*", bind=True)
def look(self: Any, obj: S3Object) -> None:
    """Write down the process, the app, the routes, the defaults, the claim and the modules."""
    seen = {
        "pid": os.getpid(),
        "parent_pid": os.getppid(),
        "spawned": os.environ.get("FORKED_BY_MULTIPROCESSING") == "1",
        "apps": len({id(each) for each in (app, self.app, current_app._get_current_object())}),
        "routes": [route.task for route in declared_routes()],
        "tasks": sorted(name for name in self.app.tasks if not name.startswith("celery.")),
        "max_retries": self.max_retries,
        "backoff_seconds": self.backoff_seconds,
        "backoff_max_seconds": self.backoff_max_seconds,
        "time_limit": self.time_limit,
        "soft_time_limit": self.soft_time_limit,
        "claims": len(self.request.get("bridge_owed") or ()),
        "modules": sorted(sys.modules),
    }
    written = Path("seen.json.part")
    written.write_text(json.dumps(seen), encoding="utf-8")
    written.rename("seen.json")  # whoever waits for it finds all of it


@file_task("numbers/*")
def count(obj: S3Object) -> int:
    """Be a second route."""
    return len(obj.key)


@shared_task
def double(number: int) -> int:
    """Be sent by a script."""
    return 2 * number


@shared_task
def leave(_: object) -> None:
    """End as a task must not: Celery's own decorator lets it, and the worker has to see to it."""
    sys.exit(3)
