"""What Celery's consumer does with messages it cannot run: when the channel's basic_ack and basic_reject are called."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from celery.worker.consumer.consumer import Consumer

from tests.contract import memory_channel, new_app, payload


@pytest.fixture
def app():
    """An app with the bridge's settings and one task."""
    app = new_app()
    app.task(shared=False, name="known", lazy=False)(_nothing)
    app.finalize()
    return app


def _nothing():
    pass


@pytest.fixture
def consumer(app, monkeypatch):
    """Celery's consumer without a broker: as it is once its strategies are made."""
    controller = SimpleNamespace(state=SimpleNamespace(revoked=set()), semaphore=None, app=app)
    pool = SimpleNamespace(apply_async=lambda *a, **k: None, is_green=False, num_processes=1)
    monkeypatch.setattr(Consumer.Blueprint, "default_steps", [])
    consumer = Consumer(
        lambda request: None, app=app, pool=pool, timer=SimpleNamespace(call_at=None), controller=controller
    )
    consumer.event_dispatcher = None
    consumer.strategies = {name: task.start_strategy(app, consumer) for name, task in app.tasks.items()}
    return consumer


@pytest.fixture
def receive(consumer):
    """Hand one payload to the consumer; return which of the channel's methods it called."""
    calls = []
    channel = memory_channel()
    channel.basic_ack = lambda tag, multiple=False: calls.append(("basic_ack", tag))
    channel.basic_reject = lambda tag, requeue=False: calls.append(("basic_reject", tag, requeue))
    handle = consumer.create_task_handler()

    def hand_over(message):
        made = channel.Message(message, channel=channel)
        made.accept = {"application/json"}
        handle(made)
        consumer.perform_pending_operations()
        return calls

    return hand_over


def test_a_message_without_headers_is_rejected(receive):
    """on_unknown_message: with stock Kombu the end of every raw S3 event."""
    assert receive({**payload("known"), "headers": {}, "body": "[]"}) == [("basic_reject", "tag", False)]


def test_a_task_nobody_registered_is_rejected(receive, caplog):
    """on_unknown_task: only messages of the task queue can name one, and basic_reject dead-letters them."""
    with caplog.at_level(logging.CRITICAL):
        assert receive(payload("unknown")) == [("basic_reject", "tag", False)]


def test_who_waits_for_an_unknown_task_is_told(app, receive, caplog):
    """Its result becomes a FAILURE, which is why such a message is given to Celery at all."""
    with caplog.at_level(logging.CRITICAL):
        receive(payload("unknown", tag="waited-for"))
    assert app.AsyncResult("waited-for").state == "FAILURE"


def test_a_body_that_cannot_be_decoded_is_acknowledged(receive, caplog):
    """on_decode_error acks, that is: stock Celery deletes it; our basic_ack dead-letters it."""
    with caplog.at_level(logging.CRITICAL):
        assert receive({**payload("known"), "body": "{"}) == [("basic_ack", "tag")]


@pytest.mark.parametrize("headers", [{"eta": "no time"}, {"expires": "no time"}])
def test_invalid_headers_are_rejected(receive, caplog, headers):
    """on_invalid_task: an InvalidTaskError of the Request, ours for a lease that is gone included."""
    with caplog.at_level(logging.CRITICAL):
        assert receive(payload("known", **headers)) == [("basic_reject", "tag", False)]


def test_a_content_type_that_is_not_accepted_is_rejected(receive, caplog):
    """ContentDisallowed goes the way of an invalid task: pickle never runs."""
    pickled = {**payload("known"), "content-type": "application/x-python-serialize", "content-encoding": "binary"}
    with caplog.at_level(logging.CRITICAL):
        assert receive(pickled) == [("basic_reject", "tag", False)]


def test_an_exception_of_another_kind_leaves_the_handler(consumer, receive, monkeypatch):
    """A strategy that raises is not guarded (DESIGN, fact 3), so lifecycle catches it around each message."""

    def fail(*args):
        raise RuntimeError("a bug")

    consumer.strategies["known"] = fail
    with pytest.raises(RuntimeError, match="a bug"):
        receive(payload("known"))


def test_a_good_message_goes_to_on_task_request_alone(app, consumer, receive):
    """Neither ack nor reject of the channel is called when a request is made."""
    submitted = []
    consumer.on_task_request = submitted.append
    consumer.strategies["known"] = app.tasks["known"].start_strategy(app, consumer)
    assert receive(payload("known", tag="good")) == []
    assert [request.id for request in submitted] == ["good"]
