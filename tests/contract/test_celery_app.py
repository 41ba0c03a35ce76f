"""What bridge.celery and bridge.worker.startup lean on in Celery's app and its settings."""

from __future__ import annotations

import logging

import pytest
from celery import signals
from celery.exceptions import NotRegistered
from celery.utils.imports import symbol_by_name
from celery.worker.request import Request
from kombu import Exchange, Queue

from tests.contract import QUEUE, PushTransport, new_app


@pytest.fixture
def app():
    """An app with one queue and the router of the test's own."""
    app = new_app()
    app.conf.task_queues = [Queue(QUEUE, Exchange(""), routing_key=QUEUE)]
    return app


@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL"])
def test_a_variable_wins_over_the_configured_broker(app, monkeypatch, name):
    """Celery connects with the variable's host and credentials; the transport stays the one that the app names."""
    monkeypatch.setenv(name, "redis://somebody:secret@elsewhere/1")
    connection = app.connection_for_read()
    assert (connection.hostname, connection.userid) == ("elsewhere", "somebody")
    assert type(connection.transport) is PushTransport


def test_broker_url_is_what_the_app_was_given(app):
    """It stays "sqs://" as long as nobody sets a broker."""
    assert app.conf.broker_url == "sqs://"


def test_a_router_is_called_with_name_arguments_options_and_task(app):
    """The form of bridge.celery.to_task_queue; the queue that it names is the one sent to."""
    called = []

    def router(name, args, kwargs, options, task=None, **_):
        called.append((name, args, kwargs, sorted(options)))
        return {"queue": QUEUE}

    app.conf.task_routes = (router,)
    app.amqp.flush_routes()
    assert app.amqp.router.route({"priority": 1}, "some.task", ("a",), {"b": 1})["queue"].name == QUEUE
    assert called == [("some.task", ("a",), {"b": 1}, ["priority"])]


def test_an_error_of_the_router_reaches_whoever_sends(app):
    """NoTaskQueue is raised by .delay() itself, before any connection is made."""

    def router(name, args, kwargs, options, task=None, **_):
        raise LookupError("no queue")

    app.conf.task_routes = (router,)
    app.amqp.flush_routes()
    with pytest.raises(LookupError, match="no queue"):
        app.send_task("some.task")
    assert app._pool is None


def test_queues_set_before_they_are_selected_are_the_ones_consumed(app):
    """task_queues is read when app.amqp.queues is first asked for: celeryd_init is early enough."""
    assert list(app.amqp.queues.consume_from) == [QUEUE]


def test_a_tasks_request_class_may_be_named():
    """symbol_by_name takes "module:Class" and a class, so the start-up check sees both."""
    assert symbol_by_name("celery.worker.request:Request") is Request
    assert symbol_by_name(Request) is Request


def test_a_receivers_exception_is_swallowed_and_its_system_exit_is_not(caplog):
    """Signal.send logs an Exception and goes on; only SystemExit ends the start: bridge.worker.startup.refuse."""

    def fail(**_):
        raise ValueError("from a receiver")

    def leave(**_):
        raise SystemExit(2)

    with caplog.at_level(logging.CRITICAL):
        for receiver in (fail, leave):
            signals.worker_shutdown.connect(receiver)
        try:
            with pytest.raises(SystemExit):
                signals.worker_shutdown.send(sender=None)
            signals.worker_shutdown.disconnect(leave)
            ((_, response),) = signals.worker_shutdown.send(sender=None)
        finally:
            for receiver in (fail, leave):
                signals.worker_shutdown.disconnect(receiver)
    assert isinstance(response, ValueError)


def test_an_unknown_name_is_not_in_the_tasks(app):
    """app.tasks is asked for a route's task: a missing one is a KeyError."""
    with pytest.raises((NotRegistered, KeyError)):
        app.tasks["no.such.task"]
