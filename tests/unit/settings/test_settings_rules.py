"""Which names count as settings, which are skipped or refused, and which URLs name a queue."""

from __future__ import annotations

import pytest

from bridge.errors import SettingsError
from bridge.settings.loading import load_task_queue_settings, load_worker_settings
from bridge.settings.rules import is_service_link, queue_url_fault, same_queue
from bridge.text import shown

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
OTHER = "https://sqs.eu-west-1.amazonaws.com/123456789012/other"
ENOUGH = {"SQS_QUEUE_URL": QUEUE, "BRIDGE_TASK_MODULES": "my_files", "AWS_REGION": "eu-west-1"}
NOT_BOTH = "must not be one of the queues in SQS_QUEUE_URL"
A_QUEUE_URL = "must be the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"


def fault(**environ: str) -> str:
    """The text with which the otherwise sound environment is refused."""
    with pytest.raises(SettingsError) as caught:
        load_worker_settings({**ENOUGH, **environ})
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRIDGE_QUEUE_URL", "SQS_QUEUE_URL"),
        ("SQS_QUEUE_URLS", "SQS_QUEUE_URL"),
        ("SQS_WAIT_TIME_SECONDS", "BRIDGE_WAIT_TIME_SECONDS"),
        ("BRIDGE_VISIBILITY_TIMEOUT", "BRIDGE_VISIBILITY_TIMEOUT_SECONDS"),
        ("BRIDGE_TASK_MODULE", "BRIDGE_TASK_MODULES"),
        ("BRIDGE_UNROUTED_", "BRIDGE_UNROUTED"),
    ],
)
def test_did_you_mean(name: str, meant: str) -> None:
    """An unknown name of ours is refused with the setting it resembles."""
    assert fault(**{name: "x"}) == f"unknown setting {name}; did you mean {meant}?"


def test_unknown_names() -> None:
    """A name that resembles no setting is refused without a guess; names that are not ours are left alone."""
    assert fault(BRIDGE_ZZZ="x", SQS_ZZZ="y") == "unknown setting BRIDGE_ZZZ; unknown setting SQS_ZZZ"
    assert fault(**{"BRIDGE_ZZZ\n": "x"}) == "unknown setting BRIDGE_ZZZ\\n"
    load_worker_settings({**ENOUGH, "SQS": "x", "BRIDGES": "x", "MY_BRIDGE_X": "x", "bridge_x": "x", "CELERY_X": "x"})


def test_the_name_of_the_test_suite_is_allowed() -> None:
    """SQS_TEST_ENDPOINT, which only tests read, does not stop a worker and is never suggested."""
    load_worker_settings({**ENOUGH, "SQS_TEST_ENDPOINT": "http://localhost:9324"})
    assert fault(SQS_TEST_ENDPOINTS="x") == "unknown setting SQS_TEST_ENDPOINTS"


LINKS = [
    ("BRIDGE_WORKER_SERVICE_HOST", "10.0.0.1"),
    ("BRIDGE_WORKER_SERVICE_HOST", "fd00::1"),
    ("BRIDGE_WORKER_SERVICE_PORT", "80"),
    ("BRIDGE_WORKER_SERVICE_PORT_HTTP", "80"),
    ("BRIDGE_WORKER_PORT", "tcp://10.0.0.1:80"),
    ("BRIDGE_WORKER_PORT", "tcp://[fd00::1]:80"),
    ("BRIDGE_WORKER_PORT_80_TCP", "tcp://10.0.0.1:80"),
    ("BRIDGE_WORKER_PORT_80_TCP_PROTO", "tcp"),
    ("BRIDGE_WORKER_PORT_80_TCP_PORT", "80"),
    ("BRIDGE_WORKER_PORT_80_TCP_ADDR", "10.0.0.1"),
    ("BRIDGE_WORKER_PORT_80_TCP_ADDR", "fd00::1"),
    ("BRIDGE_DNS_PORT_53_UDP", "udp://10.0.0.1:53"),
    ("BRIDGE_SERVICE_HOST", "10.0.0.1"),
    ("SQS_PORT", "tcp://10.0.0.1:9324"),
    ("SQS_PORT_9324_TCP_PORT", "9324"),
]


@pytest.mark.parametrize(("name", "value"), LINKS)
def test_service_links_are_skipped(name: str, value: str) -> None:
    """What Kubernetes sets for a Service called bridge-worker, bridge or sqs does not count as a setting."""
    assert is_service_link(name, value)
    load_worker_settings({**ENOUGH, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BRIDGE_WORKER_SERVICE_HOST", "worker.example"),
        ("BRIDGE_WORKER_SERVICE_PORT", "http"),
        ("BRIDGE_WORKER_SERVICE_PORT", "65536"),
        ("BRIDGE_WORKER_SERVICE_PORT_HTTP", "0"),
        ("BRIDGE_WORKER_PORT", "80"),
        ("BRIDGE_WORKER_PORT", "http://10.0.0.1:80"),
        ("BRIDGE_WORKER_PORT", "tcp://10.0.0.999:80"),
        ("BRIDGE_WORKER_PORT", "tcp://fd00::1:80"),
        ("BRIDGE_WORKER_PORT_80_TCP", "tcp://10.0.0.1:81"),
        ("BRIDGE_WORKER_PORT_80_TCP", "udp://10.0.0.1:80"),
        ("BRIDGE_WORKER_PORT_80_TCP_PROTO", "udp"),
        ("BRIDGE_WORKER_PORT_80_TCP_PORT", "81"),
        ("BRIDGE_WORKER_PORT_80_TCP_ADDR", "x"),
        ("BRIDGE_WORKER_PORT_80", "80"),
        ("BRIDGE_WORKER_HOST", "10.0.0.1"),
    ],
)
def test_half_a_service_link_is_refused(name: str, value: str) -> None:
    """A name of that form with another value, or a value of that form under another name, is an unknown setting."""
    assert not is_service_link(name, value)
    assert fault(**{name: value}).startswith(f"unknown setting {name}")


@pytest.mark.parametrize("name", ["CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"])
def test_broker_variables_are_refused(name: str) -> None:
    """Celery's broker variables are refused for a worker; a sender's process may have them for an app of its own."""
    assert "SQS_QUEUE_URL" in fault(**{name: "sqs://"})
    assert load_task_queue_settings({name: "sqs://"}).sqs_task_queue_url is None
    assert load_worker_settings({**ENOUGH, name: ""}).region == "eu-west-1"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("uploads", A_QUEUE_URL),
        ("sqs://uploads", A_QUEUE_URL),
        ("https:///123456789012/uploads", A_QUEUE_URL),
        ("https://[host/uploads", A_QUEUE_URL),
        ("https://host:port/uploads", A_QUEUE_URL),
        ("https://host/up loads", A_QUEUE_URL),
        ("https://host/uploads?x=1", A_QUEUE_URL),
        ("https://host", "must end with a queue name (letters, digits, - and _)"),
        ("https://host/", "must end with a queue name (letters, digits, - and _)"),
        (QUEUE + "/", "must end with a queue name (letters, digits, - and _)"),
        ("arn:aws:sqs:eu-west-1:123456789012:uploads", "is an ARN: give the URL of the queue"),
        (
            QUEUE + ".fifo",
            "is a FIFO queue: S3 cannot send events to one, and a hidden message would block its message group",
        ),
    ],
)
def test_no_queue(url: str, rule: str) -> None:
    """What is not the URL of a standard queue is refused with the reason."""
    assert fault(SQS_QUEUE_URL=f"{OTHER},{url}") == f"SQS_QUEUE_URL={url}: {rule}"


@pytest.mark.parametrize(
    "url", [QUEUE, "http://localhost:9324/q", "http://[::1]:4566/queue/us-east-1/000000000000/my-queue_1"]
)
def test_queue(url: str) -> None:
    """AWS, ElasticMQ and other emulators' URLs are queues."""
    assert queue_url_fault(url, "SQS_QUEUE_URL") is None


def test_fifo_reasons() -> None:
    """A FIFO queue is refused in every role, each with its own reason."""
    assert "no delay per message" in fault(SQS_TASK_QUEUE_URL=OTHER + ".fifo")
    assert "must be a standard queue" in fault(SQS_DLQ_URL=OTHER + ".fifo")


def test_passwords_are_not_repeated() -> None:
    """A URL with a password is refused without repeating it."""
    text = fault(SQS_QUEUE_URL="https://me:secret@host/uploads", SQS_DLQ_URL="https://me:sec/ret@host/dlq")
    assert "SQS_QUEUE_URL=https://…@host/uploads: must not contain a user name or a password" in text
    assert "ret" not in text.replace("secret", "ret!") and "secret" not in text


def test_queues_must_differ() -> None:
    """A queue named twice, or in two roles, is refused, even under another of its AWS hosts."""
    legacy = "http://eu-west-1.queue.amazonaws.com/123456789012/uploads"
    assert fault(SQS_QUEUE_URL=f"{QUEUE},{legacy}") == f"SQS_QUEUE_URL={legacy}: is listed more than once"
    assert fault(SQS_TASK_QUEUE_URL=legacy) == f"SQS_TASK_QUEUE_URL={legacy}: {NOT_BOTH}"
    for roles in ({"SQS_DLQ_URL": QUEUE}, {"SQS_DLQ_URL": OTHER, "SQS_TASK_QUEUE_URL": OTHER}):
        expected = f"SQS_DLQ_URL={roles['SQS_DLQ_URL']}: must not be a queue that the worker reads"
        assert fault(**roles).startswith(expected)


def test_same_queue() -> None:
    """Two hosts of one region are one queue; another region, account or emulator's port is another queue."""
    assert same_queue(QUEUE, "http://vpce-1-2.sqs.eu-west-1.vpce.amazonaws.com/123456789012/uploads")
    assert not same_queue(QUEUE, QUEUE.replace("eu-west-1", "eu-west-2"))
    assert not same_queue(QUEUE, QUEUE.replace("123456789012", "210987654321"))
    assert not same_queue("http://localhost:1/q", "http://localhost:2/q")


def test_shown_is_one_short_line() -> None:
    """Whatever a variable holds is told in one line of bounded length."""
    assert shown("a\nb\u2028c\x85\udc80é") == "a\\nb\\u2028c\\x85\\udc80é"
    assert shown("x" * 1000) == "x" * 120 + "…"
