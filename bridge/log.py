"""Logs are events with fields: ``log.info("message_settled", message_id=…, outcome=…)``.

They go through the standard library's loggers, so Celery's handlers, ``-f`` and a user's own ``logging`` configuration
keep working. The bridge replaces only the last step, which turns a record into a line (``line_formatter``). It applies
to every record of the process, including the user's: one JSON object per line in a container, readable text on a
terminal.

While a task runs, every line of its thread carries the fields of that run (``bridge.task.run_context``).
docs/reference/logs.md lists the events and their fields; a test compares it with the code.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from typing import Any, Literal, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class _Logger(structlog.stdlib.BoundLogger):
    """Checks the level first: preparing the fields of a line that is then dropped costs ten times as much."""

    def debug(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        """Log one step of the work at level DEBUG."""
        return super().debug(event, *args, **fields) if self._logger.isEnabledFor(logging.DEBUG) else None

    def info(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        """Log a stage in the life of a task at level INFO."""
        return super().info(event, *args, **fields) if self._logger.isEnabledFor(logging.INFO) else None


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose methods take an event name and fields; the fields become ``extra`` of a standard record."""
    processors = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    # Bound now: structlog's lazy proxy would bind again on every call.
    return cast("FilteringBoundLogger", _Logger(logging.getLogger(name), processors, {}))


def default_format() -> Literal["text", "json"]:
    """Return ``text`` when standard error is a terminal, else ``json``."""
    return "text" if sys.stderr.isatty() else "json"


def body_fields(body: str) -> dict[str, Any]:
    """Return the fields that stand for a message body in a log line, which never contains the body itself.

    ``body_sha256`` is its SHA-256 in hex, ``body_bytes`` its length in bytes as UTF-8.
    """
    data = body.encode("utf-8", "surrogatepass")
    return {"body_sha256": hashlib.sha256(data).hexdigest(), "body_bytes": len(data)}


def line_formatter(log_format: Literal["text", "json"], **fields: str | None) -> logging.Formatter:
    """Return a formatter that writes one line per record and adds the ``fields`` that are not None to each line.

    If ``fields`` has no ``job_id``, a line about a task gets the task's id as its ``job_id``.
    """
    constant = {name: value for name, value in fields.items() if value is not None}

    def add_fields(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if "job_id" not in constant and "task_id" in event:
            event.setdefault("job_id", event["task_id"])
        return {**event, **constant}

    renderer: Any = (
        structlog.processors.JSONRenderer(default=str)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=24, exception_formatter=structlog.dev.plain_traceback
        )
    )
    before: list[Any] = [
        structlog.stdlib.ExtraAdder(),
        structlog.contextvars.merge_contextvars,  # a field of the line itself takes precedence
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_celery_duplicate,
    ]
    after: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        before.append(add_fields)
        # In JSON the exception becomes one field; the text renderer prints it below the line.
        after.append(structlog.processors.format_exc_info)
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=[*after, renderer])


def drop_celery_duplicate(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove Celery's ``data`` field: the message already contains it, and it holds task arguments in full length."""
    event.pop("data", None)
    return event


def use_format(logger: logging.Logger, log_format: Literal["text", "json"], **fields: str | None) -> None:
    """Set the bridge's line format on every handler of ``logger``."""
    for handler in logger.handlers:
        handler.setFormatter(line_formatter(log_format, **fields))
