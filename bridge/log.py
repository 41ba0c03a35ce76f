"""Logs are events with fields: ``log.info("message_settled", message_id=…, outcome=…)``.

They go through the standard library's loggers, so Celery's handlers, ``-f`` and a user's own ``logging`` set-up keep
working; only the last step, turning a record into a line, is ours (``line_formatter``), and it does the same for every
record of the process, the user's included: one JSON object a line in a container, a readable line on a terminal.

While a task runs, every line of its thread says whose run it is (``bridge.task.run_context``). docs/logs.md lists the
events and their fields; a test compares it with the code.
"""

from __future__ import annotations

import hashlib
import logging
import sys
from typing import Any, Literal, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger


class _Logger(structlog.stdlib.BoundLogger):
    """Asks for the level first: to make a line's fields up and then refuse it costs ten times as much."""

    def debug(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        """Write a line about each step."""
        return super().debug(event, *args, **fields) if self._logger.isEnabledFor(logging.DEBUG) else None

    def info(self, event: str | None = None, *args: Any, **fields: Any) -> Any:
        """Write a line about a task's life."""
        return super().info(event, *args, **fields) if self._logger.isEnabledFor(logging.INFO) else None


def get_logger(name: str) -> FilteringBoundLogger:
    """Return a logger whose methods take an event name and fields; fields become ``extra`` of a standard record."""
    processors = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    # Bound at once: structlog's lazy proxy would be asked again at every call.
    return cast("FilteringBoundLogger", _Logger(logging.getLogger(name), processors, {}))


def default_format() -> Literal["text", "json"]:
    """Return ``text`` on a terminal, else ``json``."""
    return "text" if sys.stderr.isatty() else "json"


def body_fields(body: str) -> dict[str, Any]:
    """Return what a log line may say of a message's body: its SHA-256 in hex and its bytes as UTF-8, never itself."""
    data = body.encode("utf-8", "surrogatepass")
    return {"body_sha256": hashlib.sha256(data).hexdigest(), "body_bytes": len(data)}


def line_formatter(log_format: Literal["text", "json"], **fields: str | None) -> logging.Formatter:
    """Return the formatter that writes one line a record, with those of ``fields`` on each that are not None.

    Without a ``job_id`` among them, a line about a task has the task's id as its ``job_id``.
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
        structlog.contextvars.merge_contextvars,  # a field of the line itself wins
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        drop_celery_duplicate,
    ]
    after: list[Any] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if log_format == "json":
        before.append(add_fields)
        # An exception as one field of the object; the text renderer prints it below the line by itself.
        after.append(structlog.processors.format_exc_info)
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=[*after, renderer])


def drop_celery_duplicate(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Remove what Celery passes twice: its context is in the message already, and holds arguments at full length."""
    event.pop("data", None)
    return event


def use_format(logger: logging.Logger, log_format: Literal["text", "json"], **fields: str | None) -> None:
    """Give every handler of ``logger`` our line format."""
    for handler in logger.handlers:
        handler.setFormatter(line_formatter(log_format, **fields))
