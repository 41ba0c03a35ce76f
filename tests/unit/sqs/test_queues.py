"""The queues of a worker: their names, and what SQS says of them, with a client that answers as it is told."""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from bridge.errors import SettingsError
from bridge.sqs.queue_lookup import look_up
from bridge.sqs.queues import MAX_MESSAGE_BYTES, Queue, named_queues, queue_name

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
DLQ = "https://sqs.eu-west-1.amazonaws.com/210987654321/dead"
ARN = "arn:aws:sqs:eu-west-1:210987654321:dead"
QUEUE = Queue("uploads", URL, "event")


def refusal(code):
    """SQS's refusal of a call."""
    return ClientError({"Error": {"Code": code, "Message": "…"}}, "Operation")


class Sqs:
    """GetQueueAttributes and GetQueueUrl; a value that is an exception is raised."""

    def __init__(self, attributes, dlq_url=DLQ):
        self.attributes = attributes
        self.dlq_url = dlq_url
        self.calls = []

    def get_queue_attributes(self, **arguments):
        self.calls.append(("attributes", arguments))
        return {"Attributes": self._given(self.attributes[arguments["QueueUrl"]])}

    def get_queue_url(self, **arguments):
        self.calls.append(("url", arguments))
        return {"QueueUrl": self._given(self.dlq_url)}

    def _given(self, value):
        if isinstance(value, Exception):
            raise value
        return value


def redrive(arn=ARN, **policy):
    """The attributes of a queue with a dead-letter queue."""
    return {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn} | policy)}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (URL, "uploads"),
        (URL + "/", "uploads"),
        ("http://localhost:9324/queue/uploads", "uploads"),
        ("http://localhost:9324/uploads", "uploads"),
        (URL + "?x=1", "uploads"),
    ],
)
def test_the_name_is_the_end_of_the_url(url, name):
    """For AWS and for emulators, with a slash at the end or without."""
    assert queue_name(url) == name


def test_queues_keep_their_order_and_kind():
    """Those of S3 events first, the task queue last."""
    queues = named_queues((URL, DLQ), "https://sqs/1/tasks")
    assert [(q.name, q.kind) for q in queues] == [("uploads", "event"), ("dead", "event"), ("tasks", "task")]
    assert [q.url for q in queues] == [URL, DLQ, "https://sqs/1/tasks"]
    assert [q.kind for q in named_queues((URL,), None)] == ["event"]


def test_queues_of_one_name_are_told_apart_by_their_account():
    """Two accounts may each have a queue of that name."""
    other = URL.replace("123456789012", "210987654321")
    names = [q.name for q in named_queues((URL, other, "https://sqs/1/x"), None)]
    assert names == ["123456789012-uploads", "210987654321-uploads", "x"]


def test_the_dead_letter_queue_comes_from_the_redrive_policy():
    """Its URL is asked for by name and account, and its own size limit and the receive count are noted."""
    sqs = Sqs({URL: redrive(maxReceiveCount=20), DLQ: {"MaximumMessageSize": "262144"}})
    assert look_up(sqs, QUEUE, None) == Queue(
        "uploads", URL, "event", dlq_url=DLQ, dlq_max_bytes=262_144, max_receives=20
    )
    assert ("url", {"QueueName": "dead", "QueueOwnerAWSAccountId": "210987654321"}) in sqs.calls
    assert sqs.calls[0] == ("attributes", {"QueueUrl": URL, "AttributeNames": ["All"]})


def test_a_dead_letter_queue_from_the_settings_needs_no_redrive_policy():
    """SQS_DLQ_URL is taken as it is; with no policy there is no receive count either."""
    sqs = Sqs({URL: {}, DLQ: {}})
    found = look_up(sqs, QUEUE, DLQ)
    assert (found.dlq_url, found.max_receives, found.dlq_max_bytes) == (DLQ, None, MAX_MESSAGE_BYTES)
    assert all(name != "url" for name, _ in sqs.calls)


def test_a_receive_count_may_be_a_text():
    """Some servers answer numbers as texts, as AWS itself did."""
    assert look_up(Sqs({URL: redrive(maxReceiveCount="7"), DLQ: {}}), QUEUE, None).max_receives == 7


def test_the_kind_survives():
    """A task queue stays one."""
    queue = Queue("tasks", URL, "task")
    assert look_up(Sqs({URL: {}, DLQ: {}}), queue, DLQ).kind == "task"


@pytest.mark.parametrize("policy", [{}, {"RedrivePolicy": ""}, {"RedrivePolicy": "{}"}, {"RedrivePolicy": "[]"}])
def test_no_dead_letter_queue_is_a_refusal(policy):
    """The text names the queue and both ways out."""
    with pytest.raises(SettingsError, match=r"uploads has no dead-letter queue .*: give it a RedrivePolicy, or set"):
        look_up(Sqs({URL: policy}), QUEUE, None)


@pytest.mark.parametrize("code", ["AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"])
def test_a_queue_that_does_not_exist_is_a_refusal(code):
    """The queue itself, by its setting's name, and its dead-letter queue, by whose it is."""
    with pytest.raises(SettingsError, match=f"SQS_QUEUE_URL: there is no queue {URL}"):
        look_up(Sqs({URL: refusal(code)}), QUEUE, None)
    with pytest.raises(SettingsError, match=f"SQS_TASK_QUEUE_URL: there is no queue {URL}"):
        look_up(Sqs({URL: refusal(code)}), Queue("t", URL, "task"), None)
    with pytest.raises(SettingsError, match=f"the dead-letter queue of uploads: there is no queue {DLQ}"):
        look_up(Sqs({URL: {}, DLQ: refusal(code)}), QUEUE, DLQ)
    with pytest.raises(SettingsError, match=f"its dead-letter queue {ARN} does not exist"):
        look_up(Sqs({URL: redrive()}, refusal(code)), QUEUE, None)


@pytest.mark.parametrize("code", ["AccessDenied", "AccessDeniedException", "AWS.SimpleQueueService.AccessDenied"])
def test_no_permission_is_a_refusal(code):
    """The text names the permission that is missing."""
    with pytest.raises(SettingsError, match=r"SQS_QUEUE_URL: access to .* is denied .sqs:GetQueueAttributes"):
        look_up(Sqs({URL: refusal(code)}), QUEUE, None)
    with pytest.raises(SettingsError, match="sqs:GetQueueUrl on arn:aws:sqs"):
        look_up(Sqs({URL: redrive()}, refusal(code)), QUEUE, None)


def test_a_fifo_queue_is_a_refusal():
    """Of the queue and of its dead-letter queue."""
    with pytest.raises(SettingsError, match="is a FIFO queue"):
        look_up(Sqs({URL: {"FifoQueue": "true"}}), QUEUE, None)
    with pytest.raises(SettingsError, match=r"the dead-letter queue of uploads: .* is a FIFO queue"):
        look_up(Sqs({URL: {}, DLQ: {"FifoQueue": "true"}}), QUEUE, DLQ)


def test_a_queue_is_not_its_own_dead_letter_queue():
    """A dead letter would be received again at once, for ever."""
    with pytest.raises(SettingsError, match="is its own dead-letter queue"):
        look_up(Sqs({URL: {}}), QUEUE, URL)


@pytest.mark.parametrize("failure", [refusal("RequestThrottled"), refusal("ServiceUnavailable"), OSError("no route")])
def test_what_may_pass_is_raised_as_it_is(failure):
    """Throttling, 5xx and the network are no mistake of the settings: the worker waits."""
    for sqs, dlq_url in (
        (Sqs({URL: failure}), None),
        (Sqs({URL: redrive()}, failure), None),
        (Sqs({URL: {}, DLQ: failure}), DLQ),
    ):
        with pytest.raises(type(failure)) as caught:
            look_up(sqs, QUEUE, dlq_url)
        assert caught.value is failure
