"""Where a dead letter came from: the queue that redrive sends it back to.

The name in a cause is not to be trusted: anyone who may write to a queue could write one, and have a message sent to
any queue of the account. So it counts only where the settings name the queue, or where the queue's own RedrivePolicy
leads to this dead-letter queue (ListDeadLetterSourceQueues). What SQS itself says (DeadLetterQueueSourceArn) counts
always.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.aws_errors import ACCESS_DENIED, NO_SUCH_QUEUE, NOT_IMPLEMENTED, error_code
from bridge.errors import SettingsError
from bridge.messages.dead_letter import Letter
from bridge.settings.rules import same_queue
from bridge.sqs.queue_lookup import attributes_of
from bridge.sqs.queues import all_queues, queue_name
from bridge.sqs.quotas import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from bridge.settings.loading import QueueSettings


@dataclass(frozen=True, slots=True)
class RedriveTarget:
    """A queue to send to; ``max_bytes`` is the most that one of its messages may have."""

    url: str
    max_bytes: int

    @property
    def name(self) -> str:
        """The queue's name."""
        return queue_name(self.url)


class Sources:
    """Finds the queue of each message; asks SQS each question once."""

    def __init__(self, client: Any, dlq_url: str, settings: QueueSettings, to: str | None) -> None:
        """``to`` is the URL for all messages, or None. Raises SettingsError when it is not a queue to send to."""
        self._client = client
        self._dlq_url = dlq_url
        self._known = {queue.name: queue.url for queue in all_queues(settings)}
        self._sources: list[str] | None = None
        self._targets: dict[str, RedriveTarget | None] = {}
        self._by_arn: dict[str, str | None] = {}
        self._all: RedriveTarget | None = None
        if to is not None:
            if same_queue(to, dlq_url):
                raise SettingsError("--to names the dead-letter queue itself")
            self._all = self._target(to)

    def target(self, letter: Letter) -> RedriveTarget | None:
        """Return the queue that the message goes back to, or None when no trusted source names one."""
        if self._all is not None:
            return self._all
        if letter.source_arn is not None:
            url = self._url_of(letter.source_arn)
        elif letter.source_queue is not None:
            url = self._known.get(letter.source_queue) or self._by_name(letter.source_queue)
        else:
            url = self._only_one()
        if url is None or same_queue(url, self._dlq_url):
            return None
        if url not in self._targets:
            try:
                self._targets[url] = self._target(url)
            except SettingsError:  # deleted since, or access is denied: its messages stay
                self._targets[url] = None
        return self._targets[url]

    def _target(self, url: str) -> RedriveTarget:
        attributes = attributes_of(self._client, url)
        return RedriveTarget(url, int(attributes.get("MaximumMessageSize") or MAX_MESSAGE_BYTES))

    def _url_of(self, arn: str) -> str | None:
        if arn not in self._by_arn:
            account, name = arn.split(":")[-2:] if arn.count(":") == 5 else ("", "")
            try:
                answer = self._client.get_queue_url(QueueName=name, QueueOwnerAWSAccountId=account) if name else {}
            except Exception as error:
                if error_code(error) not in _NO_ANSWER:
                    raise
                answer = {}
            # Where GetQueueUrl is denied, the settings and the policies may still know the queue.
            self._by_arn[arn] = answer.get("QueueUrl") or self._known.get(name) or self._by_name(name)
        return self._by_arn[arn]

    def _by_name(self, name: str) -> str | None:
        found = [url for url in self._leading_here() if queue_name(url) == name]
        return found[0] if len(found) == 1 else None

    def _only_one(self) -> str | None:
        # The same queue may have two URLs, one in the settings and one in SQS's answer.
        urls = self._leading_here() or list(self._known.values())
        return urls[0] if len(urls) == 1 else None

    def _leading_here(self) -> list[str]:
        """The queues whose RedrivePolicy names this dead-letter queue; none where that may not be asked."""
        if self._sources is None:
            try:
                pages = self._client.get_paginator("list_dead_letter_source_queues").paginate(QueueUrl=self._dlq_url)
                self._sources = [url for page in pages for url in page.get("queueUrls") or ()]
            except Exception as error:
                if error_code(error) not in _NO_ANSWER:
                    raise
                self._sources = []
        return self._sources


#: Codes after which the question is answered in another way; anything else is a failure that may pass.
_NO_ANSWER = ACCESS_DENIED | NO_SUCH_QUEUE | NOT_IMPLEMENTED
