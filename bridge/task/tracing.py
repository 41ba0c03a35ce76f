"""OpenTelemetry spans, one a run, made in the process that runs it and joined to the sender's trace.

Off unless the standard variables ask for it and the extra ``otel`` is installed; everything else about it is the SDK's:
``OTEL_TRACES_EXPORTER``, ``OTEL_EXPORTER_OTLP_…``, ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES``,
``OTEL_TRACES_SAMPLER``, ``OTEL_BSP_…``, ``OTEL_SDK_DISABLED``.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/

The names follow the semantic conventions for messaging; they are marked there as in development.
https://opentelemetry.io/docs/specs/semconv/messaging/sqs/
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span
import re
from dataclasses import dataclass

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
#: The protocols of the specification → the name under which each exporter package registers.
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
#: How the message fields of the log are called on a span.
_ATTRIBUTES = {
    "message_id": "messaging.message.id",
    "queue": "messaging.destination.name",
    "bucket": "aws.s3.bucket",
    "key": "aws.s3.key",
    "task": "bridge.task",
    "task_id": "bridge.task_id",
    "attempt": "bridge.attempt",
}


class TracingOff(Exception):  # noqa: N818 - not an error of the worker, which goes on without spans
    """Spans are asked for and cannot be made; the text says what is missing."""


def wanted_exporters(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the span exporters that the standard variables ask for; none means: make no spans. Pure.

    The specification's default exporter is ``otlp``; here an endpoint has to be named too, or every worker in the world
    would send to a port of its own host.
    """
    given = {name: value.strip() for name, value in environ.items() if value.strip()}
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return ()
    default = "otlp" if any(name in given for name in _ENDPOINTS) else "none"
    names = [name.strip() for name in given.get("OTEL_TRACES_EXPORTER", default).split(",")]
    protocol = next((given[name] for name in _PROTOCOLS if name in given), "http/protobuf")
    return tuple(
        _OTLP.get(protocol, protocol) if name == "otlp" else name for name in names if name not in ("", "none")
    )


def find_exporters(names: Sequence[str]) -> list[Callable[[], SpanExporter]]:
    """Return what makes each exporter; raises TracingOff when the SDK or an exporter is not installed."""
    try:
        import opentelemetry.sdk.trace.export  # noqa: F401 - in the parent, so that forked children share it
    except ImportError as error:
        raise TracingOff("spans are asked for and need pip install 'bucket-brigade[otel]'") from error
    found = []
    for name in names:
        [entry] = entry_points(group="opentelemetry_traces_exporter", name=name) or [None]
        if entry is None:
            raise TracingOff(f"no span exporter {name} is installed")
        try:
            found.append(entry.load())
        except ImportError as error:
            raise TracingOff(f"the span exporter {name} cannot be imported: {error}") from error
    return found


class Spans:
    """Makes the spans of this process. Never raises for what a message says."""

    def __init__(self, exporters: Sequence[Callable[[], SpanExporter]]) -> None:
        """Join what ``opentelemetry-instrument`` set up, or set the process up with ``exporters``.

        Made after a fork: an exporter has a thread.
        """
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            resource = Resource.create()
            if str(resource.attributes.get("service.name", "unknown_service")).startswith("unknown_service"):
                resource = resource.merge(Resource({"service.name": "bucket-brigade"}))
            # The SDK's own way out waits 30 s for a collector that hangs; ``flush`` does not.
            provider = TracerProvider(resource=resource, shutdown_on_exit=False)
            for make in exporters:
                provider.add_span_processor(BatchSpanProcessor(make()))
            trace.set_tracer_provider(provider)
        self._tracer = trace.get_tracer("bridge", version("bucket-brigade"))

    def begin(self, fields: Mapping[str, Any], trace_header: object) -> OpenSpan:
        """Begin the span of a run and make it the current one of this thread.

        ``fields`` are the message fields of the log; ``trace_header`` is the message's AWSTraceHeader, or None. The
        sender's span is the parent (the trace goes on) and a link too, as the conventions want it.
        """
        from opentelemetry import context, trace

        parent = parse_trace_header(trace_header)
        links, around = [], None
        if parent is not None:
            flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.sampled else trace.TraceFlags.DEFAULT)
            sender = trace.SpanContext(parent.trace_id, parent.span_id, is_remote=True, trace_flags=flags)
            links = [trace.Link(sender)]
            around = trace.set_span_in_context(trace.NonRecordingSpan(sender))
        span = self._tracer.start_span(
            f"process {fields.get('queue') or fields['task']}",
            context=around,
            kind=trace.SpanKind.CONSUMER,
            links=links,
            attributes={
                "messaging.system": "aws_sqs",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                **{_ATTRIBUTES[name]: value for name, value in fields.items() if name in _ATTRIBUTES},
            },
        )
        return OpenSpan(span, context.attach(trace.set_span_in_context(span)))

    def flush(self, timeout_seconds: float) -> None:
        """Send what was recorded, for at most ``timeout_seconds``: a collector that hangs must not hold up the end."""
        from opentelemetry import trace

        send = getattr(trace.get_tracer_provider(), "force_flush", None)
        if send is not None:
            # In a thread of its own, because the SDK takes a time-out for this and does not keep to it.
            thread = threading.Thread(target=send, name="bridge-flush-spans", daemon=True)
            thread.start()
            thread.join(timeout_seconds)


class OpenSpan:
    """The span of a run that is under way."""

    def __init__(self, span: Span, token: Any) -> None:
        """``token`` takes the span out of the thread's context again."""
        self._span = span
        self._token = token

    @property
    def ids(self) -> dict[str, str]:
        """The names of the trace and the span in log lines, as the conventions spell them: lower-case hex."""
        context = self._span.get_span_context()
        return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}

    def end(self, state: str | None, error: BaseException | None) -> None:
        """End the span; ``state`` is Celery's word for how the run ended, ``error`` what it failed with, if it did."""
        from opentelemetry import context, trace

        try:
            if state is not None:
                self._span.set_attribute("bridge.state", state.lower())
            if error is not None:
                self._span.set_attribute("error.type", type(error).__name__)
                with suppress(Exception):  # an exception whose own __str__ raises
                    self._span.record_exception(error)
                self._span.set_status(trace.StatusCode.ERROR, type(error).__name__)
        finally:
            self._span.end()
            context.detach(self._token)


#: The header is untrusted input; a real one, with its Self, Parent and Lineage, has less than 200 characters.
MAX_HEADER_CHARACTERS = 1_000
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})", re.ASCII)
_PARENT = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The span that a message was sent in: 128-bit trace id, 64-bit span id, and whether it is recorded."""

    trace_id: int
    span_id: int
    sampled: bool


def parse_trace_header(header: object) -> TraceParent | None:
    """Return the span that an AWSTraceHeader names, or None when it is none, or names no trace or no span. Pure.

    SQS hands out the X-Ray trace header of the sender of a message (an instrumented S3 client, SNS, Lambda, our own
    dead letters). Its trace id is that of W3C with two dashes in it, so a trace goes on from X-Ray to OpenTelemetry.
    https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader

    A header without a decision on sampling (``Sampled=?``, or none) counts as sampled: tracing was set up to see runs.
    Of a field that is there twice, the first counts.
    """
    if not isinstance(header, str) or len(header) > MAX_HEADER_CHARACTERS:
        return None
    fields: dict[str, str] = {}
    for part in header.split(";"):
        name, _, value = part.strip(" ").partition("=")
        fields.setdefault(name, value.lower())
    root, parent = _ROOT.fullmatch(fields.get("Root", "")), _PARENT.fullmatch(fields.get("Parent", ""))
    if root is None or parent is None:
        return None
    trace_id, span_id = int(root[1] + root[2], 16), int(parent[0], 16)
    if not trace_id or not span_id:
        return None  # W3C takes ids of nothing but zeros for none
    return TraceParent(trace_id, span_id, sampled=fields.get("Sampled") != "0")
