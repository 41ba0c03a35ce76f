"""``brigade provision`` against real servers: made once, left alone afterwards, and it works."""

from __future__ import annotations

import json
import uuid

import pytest

from bridge.s3.event import parse
from tests.support.fault_proxy import FaultProxy
from tests.support.servers.sqs import counts, environment_for
from tests.support.servers.waiting import wait_until
from tests.unit.operations.conftest import drained

TAGS = {"bucket-brigade": "provisioned"}


@pytest.fixture
def queue_name(sqs_server):
    """A name for a queue; it and its DLQ are deleted afterwards."""
    name = f"prov-{uuid.uuid4().hex[:8]}"
    yield name
    for each in (name, f"{name}-dlq"):
        try:
            sqs_server.sqs.delete_queue(QueueUrl=url_of(sqs_server, each))
        except sqs_server.sqs.exceptions.QueueDoesNotExist:
            pass


def url_of(server, name: str) -> str:
    """The URL of a queue by its name."""
    return server.sqs.get_queue_url(QueueName=name)["QueueUrl"]


def attributes_of(server, name: str) -> dict[str, str]:
    """All attributes of a queue."""
    return server.sqs.get_queue_attributes(QueueUrl=url_of(server, name), AttributeNames=["All"])["Attributes"]


def test_queue_and_dlq(brigade, sqs_server, queue_name):
    """The dry run makes nothing, the first run both queues with redrive and tags, the second run changes nothing."""
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        env = environment_for(sqs_server) | {"AWS_ENDPOINT_URL_SQS": proxy.url}
        rehearsed = brigade(env, "provision", "--queue", queue_name, "--dry-run", "--json")
        assert rehearsed.code == 0, rehearsed.err
        assert [step["do"] for step in json.loads(rehearsed.out)["steps"]] == ["create-queue", "create-queue"]
        assert proxy.count("Create*") == 0

        first = brigade(env, "provision", "--queue", queue_name)
        assert first.code == 0, first.err
        assert first.out.splitlines()[-1] == f"export SQS_TASK_QUEUE_URL={url_of(sqs_server, queue_name)}"
        redrive = json.loads(attributes_of(sqs_server, queue_name)["RedrivePolicy"])
        dlq_arn = attributes_of(sqs_server, f"{queue_name}-dlq")["QueueArn"]
        assert (redrive["deadLetterTargetArn"], int(redrive["maxReceiveCount"])) == (dlq_arn, 20)
        for name in (queue_name, f"{queue_name}-dlq"):
            assert sqs_server.sqs.list_queue_tags(QueueUrl=url_of(sqs_server, name))["Tags"] == TAGS

        before = proxy.count("Create*") + proxy.count("Set*")
        second = brigade(env, "provision", "--queue", queue_name, "--json")
        assert json.loads(second.out)["steps"] == []
        assert proxy.count("Create*") + proxy.count("Set*") == before


@pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)
def test_a_file_becomes_an_event(brigade, sqs_server, queue_name, bucket):
    """With a bucket: a file put there comes as an event, doctor finds no error, and other notifications stay."""
    name, env = bucket(), environment_for(sqs_server)
    other = sqs_server.sqs.create_queue(QueueName=f"{queue_name}-other")["QueueUrl"]
    theirs = {
        "Id": "theirs",
        "QueueArn": attributes_of(sqs_server, f"{queue_name}-other")["QueueArn"],
        "Events": ["s3:ObjectCreated:*"],
        "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": "theirs/"}]}},
    }
    sqs_server.s3.put_bucket_notification_configuration(
        Bucket=name,
        NotificationConfiguration={"QueueConfigurations": [theirs]},  # type: ignore[typeddict-item]  # a str is one
    )
    arguments = ["provision", "--queue", queue_name, "--bucket", name, "--prefix", "in/"]

    done = brigade(env, *arguments)
    assert done.code == 0, done.err
    url = url_of(sqs_server, queue_name)
    assert done.out.splitlines()[-1] == f"export SQS_QUEUE_URL={url}"
    drained(sqs_server, url)  # S3's test event
    sqs_server.s3.put_object(Bucket=name, Key="in/a b.csv", Body=b"x")
    sqs_server.s3.put_object(Bucket=name, Key="elsewhere", Body=b"x")
    wait_until(lambda: counts(sqs_server, url).visible, 10, "the event")
    [[record]] = [parse(body) for body in drained(sqs_server, url)]
    assert record.key == "in/a b.csv"

    configured = sqs_server.s3.get_bucket_notification_configuration(Bucket=name)["QueueConfigurations"]
    assert sorted(entry["Id"] for entry in configured) == [f"bucket-brigade-{queue_name}", "theirs"]
    doctor = brigade({**env, "SQS_QUEUE_URL": url}, "doctor", "--bucket", name, "--json")
    assert json.loads(doctor.out)["counts"]["error"] == 0, doctor.out
    assert json.loads(brigade(env, *arguments, "--json").out)["steps"] == []
    sqs_server.sqs.delete_queue(QueueUrl=other)


def test_what_others_made_is_not_changed(brigade, sqs_server, queues):
    """A queue without our tag is refused with exit code 2 and left as it was; with --force it is changed."""
    pair = queues(sqs_server, max_receive_count=3)
    dlq = f"{pair.name}-dlq"
    arguments = ["provision", "--queue", pair.name]
    env = environment_for(sqs_server)
    before = attributes_of(sqs_server, pair.name)["RedrivePolicy"]

    done = brigade(env, *arguments)
    assert (done.code, done.out) == (2, "")
    assert f"queue {pair.name} was not made by brigade provision" in done.err
    assert attributes_of(sqs_server, pair.name)["RedrivePolicy"] == before

    assert brigade(env, *arguments, "--force").code == 0
    redrive = json.loads(attributes_of(sqs_server, pair.name)["RedrivePolicy"])
    assert (redrive["deadLetterTargetArn"], int(redrive["maxReceiveCount"])) == (pair.dlq_arn, 20)
    assert not sqs_server.sqs.list_queue_tags(QueueUrl=url_of(sqs_server, dlq)).get("Tags")


@pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)
def test_refusals_do_nothing(brigade, sqs_server, queue_name, bucket):
    """A notification over our own output, and a bucket that is not there: exit code 2, one line, no queue made."""
    env = environment_for(sqs_server)
    name = bucket()
    for settings, to_bucket in (({"BRIDGE_RESULTS_URL": f"s3://{name}/out/"}, name), ({}, "no-such-bucket")):
        done = brigade({**env, **settings}, "provision", "--queue", queue_name, "--bucket", to_bucket)
        assert (done.code, done.err.count("\n")) == (2, 1), done.err
        with pytest.raises(sqs_server.sqs.exceptions.QueueDoesNotExist):
            url_of(sqs_server, queue_name)


@pytest.mark.parametrize("sqs_server", ["moto"], indirect=True)
def test_stopped_in_the_middle_the_next_run_finishes(brigade, sqs_server, queue_name, bucket):
    """When SQS fails after the first queue was made, the same command does the rest later."""
    name = bucket()
    with FaultProxy(sqs_server.endpoint_url) as proxy:
        env = environment_for(sqs_server) | {"AWS_ENDPOINT_URL_SQS": proxy.url}
        proxy.fail("CreateQueue", status=403, code="AccessDenied", queue=queue_name)
        arguments = ["provision", "--queue", queue_name, "--bucket", name]
        assert brigade(env, *arguments).code == 2
        assert attributes_of(sqs_server, f"{queue_name}-dlq")["MessageRetentionPeriod"] == "1209600"
        done = brigade(env, *arguments, "--json")
    steps = [(step["do"], step["name"]) for step in json.loads(done.out)["steps"]]
    assert steps == [("create-queue", queue_name), ("set-attributes", queue_name), ("put-notification", name)]
