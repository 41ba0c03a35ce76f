"""``brigade send``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from itertools import islice, repeat
from typing import Any

import click

from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.cli.options import QueueUrl, choose_queue, client_for, queue_settings
from bridge.cli.printing import messages, progress
from bridge.cli.quantities import Rate
from bridge.operations.rate_limit import RateLimit
from bridge.operations.stopping import Stop
from bridge.sqs.quotas import MAX_MESSAGE_ATTRIBUTES, MAX_MESSAGE_BYTES

_SHOWN_IDS = 10


class Attribute(click.ParamType):  # type: ignore[type-arg]  # click has made it generic with 8.5 only
    """A message attribute: a name of the form that SQS allows, ``=``, and a text.

    Source of the rule: "Amazon SQS message metadata", AWS documentation.
    """

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and value."""
        name, equals, text = str(value).partition("=")
        if not equals or not text or not re.fullmatch(r"(?!(?i:aws|amazon)\.)[A-Za-z0-9_-][A-Za-z0-9._-]{0,255}", name):
            self.fail(f"{value!r} must be NAME=VALUE, the name of letters, digits, _, - and .", param, ctx)
        if name.endswith(".") or ".." in name:
            self.fail(f"{value!r}: a name has no two dots together and none at its end", param, ctx)
        return name, text


@click.command(
    "send",
    epilog="""Examples:

\b
  brigade send '{"target": "", "duration": "10"}'
  brigade send '{"n": 1}' --count 100 --rate 5 --attribute kind=test
  brigade dlq export | jq -r .body | brigade send --lines -
  brigade send - < event.json""",
)
@click.argument("body")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="Send each body so many times.")
@click.option("--lines", is_flag=True, help="With -: every line of standard input is a body of its own.")
@click.option("--rate", type=Rate(), help="At most so many messages per second.")
@click.option(
    "--attribute", "attributes", type=Attribute(), multiple=True, help="A message attribute; may be repeated."
)
@click.option("--queue", type=QueueUrl(), help="Name of a queue of the settings, or any queue's URL.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def command(
    body: str,
    count: int,
    lines: bool,
    rate: float | None,
    attributes: tuple[tuple[str, str], ...],
    queue: str | None,
    as_json: bool,
) -> int:
    """Send BODY to the queue, as it is; `-` reads it from standard input.

    The queue is SQS_QUEUE_URL, or the one that --queue names. Ten messages go with one call. Exit code 1 when SQS did
    not take all.
    """
    if lines and body != "-":
        raise click.UsageError("--lines goes with - only")
    given = dict(attributes)
    if len(given) != len(attributes):
        raise click.UsageError("--attribute names one attribute twice")
    if len(given) > MAX_MESSAGE_ATTRIBUTES:
        raise click.UsageError(f"SQS allows {MAX_MESSAGE_ATTRIBUTES} message attributes, not {len(given)}")
    values = {name: {"DataType": "String", "StringValue": text} for name, text in given.items()}
    with errors_reported(), Stop() as stop:
        settings = queue_settings(queue)
        target = choose_queue(settings, queue)
        sender = _Sender(client_for(settings), target.url, values, RateLimit(rate, stop), stop)
        try:
            sender.send(text for each in _bodies(body, lines) for text in repeat(each, count))
        finally:
            progress("")
            if sys.exc_info()[0] is not None and not sender.sent:
                pass  # the error says it all
            elif as_json:
                click.echo(json.dumps({"queue": target.url, "sent": sender.sent, "message_ids": sender.ids}))
            else:
                click.echo(f"sent {messages(sender.sent)} to {target.name}")
                for message_id in sender.ids if sender.sent <= _SHOWN_IDS else ():
                    click.echo(message_id)
        if sender.failed:
            raise exit_incomplete(f"SQS did not accept {messages(len(sender.failed))}: {sender.failed[0]}")
        return stop.exit_code


class _Sender:
    def __init__(self, client: Any, url: str, attributes: dict[str, Any], pace: RateLimit, stop: Stop) -> None:
        self._client = client
        self._url = url
        self._attributes = {"MessageAttributes": attributes} if attributes else {}
        self._pace = pace
        self._stop = stop
        self.sent = 0
        self.ids: list[str] = []  # of the first few
        self.failed: list[str] = []

    def send(self, bodies: Iterator[str]) -> None:
        """Send until the bodies end, SQS refuses one, or a signal comes. Raises the SDK's errors."""
        from bridge.messages.dead_letter import size_bytes
        from bridge.operations.dlq.redrive import in_batches
        from bridge.sqs.batches import send_batch

        own = sum(size_bytes(name, value) for name, value in self._attributes.get("MessageAttributes", {}).items())
        while not self.failed and not self._stop and (some := list(islice(bodies, self._pace.batch))):
            for positions in in_batches([len(text.encode("utf-8", "surrogatepass")) + own for text in some]):
                self._pace.wait(len(positions))
                if self._stop or self.failed:
                    return
                entries = [{"MessageBody": some[position], **self._attributes} for position in positions]
                answer = send_batch(self._client, self._url, entries)
                self.sent += len(answer.done)
                new = [answer.done[position]["MessageId"] for position in sorted(answer.done)]
                self.ids += new[: _SHOWN_IDS - len(self.ids)]
                self.failed += answer.failed.values()
                progress(f"{self.sent:,} sent")


def _bodies(body: str, lines: bool) -> Iterator[str]:
    """Yield the bodies. Raises click.UsageError for one that SQS would not take."""
    texts: Iterator[str]
    if body != "-":
        texts = iter([body])
    elif lines:
        texts = (line.rstrip("\r\n") for line in sys.stdin if line.strip())
    else:
        texts = iter([sys.stdin.read()])
    for text in texts:
        size = len(text.encode("utf-8", "surrogatepass"))
        if not text:
            raise click.UsageError("the body is empty: SQS takes none without a character")
        if size > MAX_MESSAGE_BYTES:
            raise click.UsageError(f"a body has {size:,} bytes: SQS takes {MAX_MESSAGE_BYTES:,}")
        # The characters of XML 1.0, as SendMessage has them.
        if found := re.search("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", text):
            raise click.UsageError(f"a body has the character {found[0]!r}, which SQS does not take")
        yield text
