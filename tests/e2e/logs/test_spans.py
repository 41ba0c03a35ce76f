"""What spans say, and whose trace they go on with, through real workers and a collector."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from tests.e2e.logs.collector import attributes, running_collector
from tests.e2e.logs.conftest import TASKS
from tests.e2e.outcomes.rig import Rig
from tests.support.servers.waiting import wait_until

TRACE, PARENT = "5759e988bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
HEADER = f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent={PARENT};Sampled="
SECONDS = 60.0


def announcement(record):
    """The body of an event with this one record."""
    return json.dumps({"Records": [record]})


def spans(rig, collector, message_id, count):
    """All spans of a message whose end is reached."""
    rig.end(message_id)
    return wait_until(lambda: len(found := collector.about(message_id)) >= count and found, SECONDS, "its spans")


def test_a_span_goes_on_with_the_senders_trace(rig, collector):
    """A message with an AWSTraceHeader is processed in a span of that trace, under and linked to the sender's span."""
    record = rig.put("talk/traced")
    message_id = rig.send(announcement(record), trace_header=HEADER + "1")
    [span] = spans(rig, collector, message_id, 1)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(TRACE, PARENT)]
    assert (span.name, span.kind) == (f"process {rig.queues['main'].name}", Span.SPAN_KIND_CONSUMER)
    assert attributes(span) == {
        "messaging.system": "aws_sqs",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": message_id,
        "messaging.destination.name": rig.queues["main"].name,
        "aws.s3.bucket": rig.bucket,
        "aws.s3.key": "talk/traced",
        "bridge.task": f"{TASKS}.talk",
        "bridge.task_id": message_id,
        "bridge.attempt": 1,
        "bridge.state": "success",
    }
    [line] = [e for e in rig.worker.found("own field wins") if e["message_id"] == message_id]
    assert (line["trace_id"], line["span_id"]) == (TRACE, span.span_id.hex())


def test_one_span_a_run(rig, collector):
    """A retry is a run and a span of its own; both are failed spans with the error, in one trace with the sender."""
    record = rig.put("fail/traced")
    message_id = rig.send(announcement(record), trace_header=HEADER + "?")
    first, second = spans(rig, collector, message_id, 2)
    assert [attributes(s)["bridge.attempt"] for s in (first, second)] == [1, 2]
    assert [attributes(s)["bridge.state"] for s in (first, second)] == ["retry", "failure"]
    for span in (first, second):
        assert span.trace_id.hex() == TRACE
        assert attributes(span)["error.type"] == "ValueError"
        assert span.status.code == Status.STATUS_CODE_ERROR
        [event] = span.events
        assert attributes(event)["exception.message"] == "no good: fail/traced"


def test_a_message_without_a_header(rig, collector):
    """Without a trace header, or with one that is none, a run begins a trace of its own."""
    plain = rig.upload("talk/plain")
    odd = rig.send(announcement(rig.put("talk/odd")), trace_header="Root=nonsense")
    [first] = spans(rig, collector, plain, 1)
    [second] = spans(rig, collector, odd, 1)
    assert not first.parent_span_id
    assert not second.parent_span_id
    assert len({first.trace_id, second.trace_id, bytes.fromhex(TRACE)}) == 3


def test_an_unsampled_trace(rig, collector):
    """Of a trace that its beginner chose not to record, no span is sent."""
    unsampled = rig.send(announcement(rig.put("talk/unsampled")), trace_header=HEADER + "0")
    rig.end(unsampled)
    [_] = spans(rig, collector, rig.upload("talk/after"), 1)
    assert collector.about(unsampled) == []


def test_the_service_has_a_name(rig, collector):
    """Where OTEL_SERVICE_NAME says nothing, the service is called bucket-brigade."""
    spans(rig, collector, rig.upload("talk/service"), 1)
    assert {resource["service.name"] for resource, _ in collector.spans} == {"bucket-brigade"}


def end_with_an_unsent_span(server, *, hang):
    """Stop a worker that has not sent its span yet; return its exit code, and whether the collector hung.

    Then how many spans came, and the lines of an end by force.
    """
    with running_collector() as collector, Rig(server) as rig:
        worker = rig.start_worker(
            *("-P", "prefork", "-c", "1"),
            BRIDGE_TASK_MODULES=TASKS,
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_BSP_SCHEDULE_DELAY="600000",
        )
        message_id = rig.upload("talk/last")
        rig.end(message_id)
        assert collector.about(message_id) == []
        if hang:
            collector.hang.set()
        worker.process.terminate()
        code = worker.wait_exit(SECONDS)
        forced = worker.found("drain_left_by_force")
        return code, collector.hung.is_set(), len(collector.about(message_id)), forced


def test_last_spans_are_sent_and_a_hanging_collector_holds_nothing_up(moto_server):
    """At SIGTERM the spans not yet sent are sent; with a collector that hangs the worker ends all the same."""
    with ThreadPoolExecutor() as both:
        sent = both.submit(end_with_an_unsent_span, moto_server, hang=False)
        hung = both.submit(end_with_an_unsent_span, moto_server, hang=True)
    assert sent.result() == (0, False, 1, [])
    assert hung.result() == (0, True, 0, [])
