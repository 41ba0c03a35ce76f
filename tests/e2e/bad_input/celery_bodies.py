"""Messages as a stock Celery producer sends them: a plain Celery app on Kombu's own SQS transport."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu.utils.url import safequote

from tests.support.servers.sqs import REGION, QueueFactory, SqsServer, receive

#: The forms in which Kombu and Celery write a message: (name, base64, task protocol).
FORMS = (
    ("plain", False, 2),
    ("base64", True, 2),
    ("plain, protocol 1", False, 1),
    ("base64, protocol 1", True, 1),
)


@contextmanager
def stock_celery(server: SqsServer, queue_url: str, *, base64: bool = True, protocol: int = 2) -> Iterator[Any]:
    """A function like ``Celery.send_task`` whose messages a stock app sends to ``queue_url``.

    ``base64`` is Kombu's default for SQS.
    """
    name = urlsplit(queue_url).path.rpartition("/")[2]
    app = Celery(
        "stock",
        broker=f"sqs://{safequote('test')}:{safequote('test')}@{urlsplit(server.endpoint_url).netloc}//",
        set_as_current=False,
    )
    app.conf.update(
        task_protocol=protocol,
        task_default_queue=name,
        broker_transport_options={
            "region": REGION,
            "is_secure": False,
            "predefined_queues": {name: {"url": queue_url}},
            "sqs_base64_encoding": base64,
        },
    )
    with app.connection_for_write() as connection:
        yield lambda task, args=(), **options: app.send_task(task, args, connection=connection, **options)
        # Kombu leaves its boto3 clients open, and an open socket is a ResourceWarning, an error here.
        for client in connection.default_channel._predefined_queue_clients.values():
            client.close()


def celery_bodies(server: SqsServer, queues: QueueFactory, task: str) -> dict[str, str]:
    """Return the bodies of messages that call ``task`` without arguments, by the names in FORMS."""
    scratch = queues.single(server)
    bodies = {}
    for name, base64, protocol in FORMS:
        with stock_celery(server, scratch, base64=base64, protocol=protocol) as send_task:
            send_task(task)
        [message] = receive(server, scratch, wait_seconds=5)
        server.sqs.delete_message(QueueUrl=scratch, ReceiptHandle=message["ReceiptHandle"])
        bodies[name] = message["Body"]
    return bodies
