"""What bridge.worker.transport leans on in Kombu's SQS transport and in the virtual transport below it."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime

import boto3
import pytest
from amqp.protocol import queue_declare_ok_t
from botocore.stub import Stubber
from kombu import Connection, Consumer, Exchange, Queue
from kombu.asynchronous import Hub, get_event_loop, set_event_loop
from kombu.transport import SQS, virtual
from kombu.utils.json import dumps

from tests.contract import QUEUE, PushTransport, new_app, payload

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"


class SendingChannel(SQS.Channel):
    """A channel that, as the bridge's, answers for the queue's URL and for the client itself."""

    body_encoding = None
    sqs_base64_encoding = False
    client = None

    def _new_queue(self, queue, **kwargs):
        return URL

    def sqs(self, queue=None):
        """Return the test's client."""
        return self.client


class SendingTransport(SQS.Transport):
    Channel = SendingChannel


@pytest.fixture
def hub():
    """An event loop that is Kombu's current one for the time of the test."""
    before, hub = get_event_loop(), Hub()
    set_event_loop(hub)
    yield hub
    hub._ready.clear()  # closing runs what still waits, and that would be a poll
    hub.close()
    set_event_loop(before)


def _channel(transport="kombu.transport.SQS:Transport"):
    options = {"predefined_queues": {QUEUE: {"url": URL}}, "region": "eu-west-1"}
    return Connection("sqs://", transport=transport, transport_options=options).channel()


def test_a_transport_given_by_class_path_is_used_with_an_sqs_url():
    """broker_transport wins over the URL's scheme, in the app as in a Connection."""
    with new_app().connection_for_read() as connection:
        assert type(connection.transport) is PushTransport


def test_the_transport_says_that_it_works_with_an_event_loop():
    """Without implements.asynchronous a worker with threads or solo would have no hub, and nothing could wake it."""
    assert SQS.Transport.implements.asynchronous is True


def test_the_transport_options_reach_the_transport():
    """broker_transport_options are the client's transport_options, where the region and the queues are looked up."""
    app = new_app(broker_transport_options={"region": "eu-west-1"})
    with app.connection_for_read() as connection:
        assert connection.transport.client.transport_options == {"region": "eu-west-1"}


def test_predefined_queues_need_no_call_to_sqs():
    """A channel with predefined queues is made without a request: it would fail here, where no server answers."""
    assert _channel().predefined_queues == {QUEUE: {"url": URL}}


def test_basic_consume_of_sqs_starts_polling_and_that_of_the_virtual_channel_does_not(hub):
    """So the bridge calls the virtual channel's, past SQS's."""
    channel = _channel()
    virtual.Channel.basic_consume(channel, QUEUE, False, print, "tag-1")
    assert not hub._ready
    SQS.Channel.basic_consume(channel, QUEUE, False, print, "tag-2")
    assert len(hub._ready) == 1


def test_a_consumer_calls_basic_consume_with_the_names_that_we_override():
    """Kombu passes queue, no_ack, callback and consumer_tag by name, and more that goes into **kwargs."""
    seen = {}

    class Channel(PushTransport.Channel):
        def basic_consume(self, queue, no_ack, callback, consumer_tag, **kwargs):
            seen.update(queue=queue, no_ack=no_ack)
            virtual.Channel.basic_consume(self, queue, no_ack, callback, consumer_tag, **kwargs)

    class Transport(PushTransport):
        pass

    Transport.Channel = Channel
    channel = Connection(transport=Transport).channel()
    Consumer(channel, [Queue(QUEUE, Exchange(""), routing_key=QUEUE)], on_message=print).consume()
    assert seen == {"queue": QUEUE, "no_ack": False}


def test_what_is_given_to_the_callback_table_reaches_the_consumer_as_a_message():
    """transport._callbacks[queue] takes a payload dict; delivery_tag and delivery_info come from its properties."""
    received = []
    channel = Connection(transport=PushTransport).channel()
    queue = Queue(QUEUE, Exchange(""), routing_key=QUEUE)
    consumer = Consumer(channel, [queue], on_message=received.append, accept=["json"])
    consumer.consume()
    channel.connection._callbacks[QUEUE](payload("some.task", tag="handle-1"))
    (message,) = received
    assert message.delivery_tag == "handle-1"
    assert message.delivery_info["routing_key"] == QUEUE
    assert message.headers["task"] == "some.task"
    assert message.channel is channel


def test_a_cancelled_consumer_is_gone_from_the_callback_table():
    """A message that comes after that is a KeyError, which lifecycle expects."""
    channel = Connection(transport=PushTransport).channel()
    consumer = Consumer(channel, [Queue(QUEUE, Exchange(""), routing_key=QUEUE)], on_message=print)
    consumer.consume()
    consumer.cancel()
    assert QUEUE not in channel.connection._callbacks


def test_a_channels_qos_is_told_of_each_message_and_is_made_from_its_class_attribute():
    """Channel.QoS names the class, append() is called for each message, and _on_collect is what restores at exit."""
    told = []

    class QoS(virtual.QoS):
        def append(self, message, delivery_tag):
            told.append(delivery_tag)

    channel = Connection(transport=PushTransport).channel()
    channel.QoS = QoS
    virtual.Channel.basic_consume(channel, QUEUE, False, lambda message: None, "tag")
    channel.connection._callbacks[QUEUE](payload("some.task", tag="handle-1"))
    assert told == ["handle-1"]
    assert channel.qos._on_collect.still_active()
    channel.qos._on_collect.cancel()
    assert not channel.qos._on_collect.still_active()


def test_closing_a_channel_restores_by_restore_unacked_once():
    """The one place where stock Kombu hands messages back at shutdown; the bridge's QoS does nothing there."""
    calls = []

    class QoS(virtual.QoS):
        def restore_unacked_once(self, stderr=None):
            calls.append(1)
            self._on_collect.cancel()

    channel = Connection(transport=PushTransport).channel()
    channel.QoS = QoS
    assert channel.qos is not None
    channel.close()
    assert calls == [1]


def test_sending_asks_the_channel_for_url_and_client_and_sends_plain_json():
    """_put calls _new_queue and sqs of our subclass; DelaySeconds in the properties is SQS's DelaySeconds."""
    client = boto3.client("sqs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x")
    channel = _channel(SendingTransport)
    channel.client = client
    message = {"body": "[]", "headers": {}, "properties": {"DelaySeconds": 7, "delivery_info": {}}}
    with Stubber(client) as stub:
        stub.add_response("send_message", {}, {"QueueUrl": URL, "MessageBody": dumps(message), "DelaySeconds": 7})
        channel._put(QUEUE, message)
        stub.assert_no_pending_responses()


def test_publishing_keeps_the_eta_in_the_headers_and_the_body_readable():
    """Celery's ETA is a header, an ISO time with its zone; without body_encoding the body stays a JSON text."""
    sent = []

    class Channel(PushTransport.Channel):
        body_encoding = None

        def _put(self, queue, message, **kwargs):
            sent.append((queue, message))

    class Transport(PushTransport):
        pass

    Transport.Channel = Channel
    app = new_app()
    app.conf.broker_transport = Transport
    app.conf.task_queues = [Queue(QUEUE, Exchange(""), routing_key=QUEUE)]
    app.send_task("some.task", args=["a"], countdown=30, queue=QUEUE)
    ((queue, message),) = sent
    wait = (datetime.fromisoformat(message["headers"]["eta"]) - datetime.now(UTC)).total_seconds()
    assert queue == QUEUE
    assert 20 < wait <= 30
    assert message["body"].startswith('[["a"]')


def test_methods_that_the_channel_overrides_have_the_same_parameters():
    """A new parameter would be lost on its way through our overrides."""
    expected = {
        "basic_ack": ["self", "delivery_tag", "multiple"],
        "basic_reject": ["self", "delivery_tag", "requeue"],
        "queue_declare": ["self", "queue", "passive", "kwargs"],
        "sqs": ["self", "queue"],
        "_new_queue": ["self", "queue", "kwargs"],
        "_put": ["self", "queue", "message", "kwargs"],
    }
    assert {name: list(inspect.signature(getattr(SQS.Channel, name)).parameters) for name in expected} == expected
    assert queue_declare_ok_t(QUEUE, 0, 0)._fields == ("queue", "message_count", "consumer_count")
