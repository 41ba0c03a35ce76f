"""How a record becomes a line: constant fields, the job's id, the run's context, and what a body is known by."""

from __future__ import annotations

import hashlib
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bound_contextvars

from bridge.log import body_fields, get_logger, line_formatter


@pytest.fixture
def lines():
    """A logger called ``bridge.test`` that writes into a list, by the formatter it is given."""
    logger = logging.getLogger("bridge.test")

    class Keeping(logging.Handler):
        def emit(self, record):
            kept.append(self.format(record))

    kept: list[str] = []
    handler = Keeping()
    logger.addHandler(handler)
    logger.setLevel("INFO")
    logger.propagate = False

    def use(*args, **fields):
        handler.setFormatter(line_formatter(*args, **fields))
        return logger, kept

    yield use
    logger.removeHandler(handler)
    logger.propagate = True


def test_the_id_of_a_named_job(lines):
    """With a job_id each line has it, whatever task it is about."""
    _, kept = lines("json", pod_name="p", job_id="nightly")
    get_logger("bridge.test").warning("a", task_id="t")
    get_logger("bridge.test").warning("b")
    assert [(e["job_id"], e["pod_name"]) for e in map(json.loads, kept)] == [("nightly", "p")] * 2


def test_the_id_of_a_job_without_a_name(lines):
    """Without one, a line about a task has the task's id as its job_id, and any other line has none."""
    _, kept = lines("json", pod_name="p", job_id=None)
    get_logger("bridge.test").warning("a", task_id="t")
    get_logger("bridge.test").warning("b")
    first, second = map(json.loads, kept)
    assert first["job_id"] == "t"
    assert "job_id" not in second


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_context_is_on_every_line(lines, log_format):
    """What is bound is on the lines of the standard library too, in both formats; a line's own field wins."""
    logger, kept = lines(log_format)
    with bound_contextvars(key="bound", queue="q-1"):
        logger.warning("plain %s", 1, extra={"queue": "own"})
    logger.warning("after")
    assert ("plain 1" in kept[0], "bound" in kept[0], "own" in kept[0], "q-1" in kept[0]) == (True, True, True, False)
    assert "bound" not in kept[1]


@given(st.text())
def test_what_a_body_is_known_by(body):
    """Hash and size are those of its UTF-8, and no text stops them, not even half a surrogate pair."""
    data = body.encode("utf-8", "surrogatepass")
    assert body_fields(body) == {"body_sha256": hashlib.sha256(data).hexdigest(), "body_bytes": len(data)}
    assert body_fields("\ud800")["body_bytes"] == 3
