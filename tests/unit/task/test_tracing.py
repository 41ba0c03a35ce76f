"""Spans: when they are made, and what is missing when they are asked for and cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from celery.exceptions import Ignore, Reject, Retry
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bridge.task.run_context import _failure
from bridge.task.tracing import Spans, TracingOff, find_exporters, wanted_exporters


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"OTEL_SERVICE_NAME": "x"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, ("otlp_proto_http",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, ("otlp_proto_http",)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, ()),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "True"}, ()),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp_proto_http",)),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp_proto_grpc",)),
        ({"OTEL_TRACES_EXPORTER": " console, otlp "}, ("console", "otlp_proto_http")),
    ],
)
def test_what_asks_for_spans(environ, expected):
    """Spans are made when a standard variable names an exporter or an endpoint, and not otherwise."""
    assert wanted_exporters(environ) == expected


def test_an_exporter_that_is_not_there():
    """An exporter that nobody installed is named in one line."""
    with pytest.raises(TracingOff, match=r"^no span exporter zipkin is installed$"):
        find_exporters(["zipkin"])


def test_without_the_extra(monkeypatch):
    """Asked for without the SDK, spans are refused in a line that says what to install."""
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace.export", None)
    with pytest.raises(TracingOff, match=r"need pip install 'bucket-brigade\[otel\]'$"):
        find_exporters(["otlp_proto_http"])


class OddError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self):
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("retval", "state", "failed"),
    [
        (ValueError("returned"), "SUCCESS", None),
        (ValueError("raised"), "FAILURE", "ValueError"),
        (Retry(exc=KeyError("k"), when=3), "RETRY", "KeyError"),
        (Retry("just later", when=3), "RETRY", None),
        (Reject("no", requeue=False), "REJECTED", "Reject"),
        (Reject("later", requeue=True), "REJECTED", None),
        (Ignore(), "IGNORED", None),
        (None, None, None),
        (OddError(), "FAILURE", "OddError"),
    ],
)
def test_which_runs_have_failed(retval, state, failed):
    """A failure, a rejection and a retry with a cause are failed spans; an end that the task chose is not."""
    error = _failure(retval, state)
    assert (error and type(error).__name__) == failed


def test_an_error_without_a_text_ends_its_span_too():
    """An exception whose own ``__str__`` raises costs the span its event, and nothing else."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    spans = Spans.__new__(Spans)
    spans._tracer = provider.get_tracer("test")
    span = spans.begin({"task": "t", "queue": "q", "bucket": "b"}, "Root=odd")
    span.end("FAILURE", OddError())
    [ended] = exporter.get_finished_spans()
    assert ended.attributes["error.type"] == "OddError"
    assert not ended.status.is_ok
    assert not trace.get_current_span().get_span_context().is_valid


SET_UP_BEFORE = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from bridge.task.tracing import Spans

theirs = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(theirs))
trace.set_tracer_provider(provider)

def ours():
    raise AssertionError("no exporter of ours is made")

spans = Spans([ours])
spans.begin({"task": "t"}, None).end("SUCCESS", None)
spans.flush(5)
print([span.name for span in theirs.get_finished_spans()])
"""


def test_tracing_that_is_set_up_already():
    """Where the process has a tracer provider (``opentelemetry-instrument``), spans go there and nowhere else."""
    done = subprocess.run([sys.executable, "-c", SET_UP_BEFORE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "['process t']\n"), done.stderr
