"""Records as DynamoDB items: ``dynamodb://table``, partition key ``id`` (a string), TTL attribute ``expires_at``.

A refused write returns the existing item (ReturnValuesOnConditionCheckFailure), so one call detects a repeated event
(https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_PutItem.html). The worker needs dynamodb:GetItem and
dynamodb:PutItem on the table. All reads are strongly consistent.
"""

from __future__ import annotations

from collections.abc import Iterator
from secrets import token_hex
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from bridge.idempotency.store import Refused, Stored, unavailable
from bridge.s3.clients import PerProcess

#: Short timeouts, for the reason given in s3_store.py. DynamoDB answers in milliseconds, so a retry on another host
#: comes early.
CONFIG = Config(
    connect_timeout=2,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 4},
    max_pool_connections=32,
    tcp_keepalive=True,
)


class DynamoDBStore:
    """A Store (bridge/idempotency/store.py) in a table."""

    refusal_tells = True

    def __init__(self, table: str, region: str | None) -> None:
        """Make no call yet; the first call of each process makes its client."""
        self.url = f"dynamodb://{table}"
        self._table = table
        self._client: PerProcess[Any] = PerProcess(lambda session: session.client("dynamodb", region, config=CONFIG))

    def read(self, record_id: str) -> Stored | None:
        """Implement ``Store.read`` with one GetItem."""
        try:
            answer = self._client.get().get_item(
                TableName=self._table, Key={"id": {"S": record_id}}, ConsistentRead=True
            )
        except (ClientError, BotoCoreError) as error:
            raise unavailable(self.url, error) from error
        return _stored(answer.get("Item"))

    def create(self, record_id: str, text: str, expires_at: int) -> str | Refused:
        """Implement ``Store.create`` with one PutItem."""
        return self._put(record_id, text, expires_at, ConditionExpression="attribute_not_exists(id)")

    def replace(self, record_id: str, text: str, tag: str, expires_at: int) -> str | Refused:
        """Implement ``Store.replace`` with one PutItem."""
        return self._put(
            record_id,
            text,
            expires_at,
            ConditionExpression="tag = :tag",
            ExpressionAttributeValues={":tag": {"S": tag}},
        )

    def records(self, folder: str) -> Iterator[tuple[str, str | None]]:
        """Implement ``Store.records``, with texts, by a Scan (dynamodb:Scan) of the whole table, one megabyte per call.

        Ids are partition keys, and a Query cannot select those by prefix. The filter saves traffic but no read units.
        """
        pages = self._client.get().get_paginator("scan")
        try:
            for page in pages.paginate(
                TableName=self._table,
                ConsistentRead=True,  # otherwise a run that has just completed may still appear unfinished
                FilterExpression="begins_with(id, :folder)",
                ProjectionExpression="id, #record, tag",
                ExpressionAttributeNames={"#record": "record"},
                ExpressionAttributeValues={":folder": {"S": folder}},
            ):
                for item in page.get("Items", ()):
                    stored = _stored(item)
                    yield item["id"]["S"], stored.text if stored else ""
        except (ClientError, BotoCoreError) as error:
            raise unavailable(self.url, error) from error

    def _put(self, record_id: str, text: str, expires_at: int, **condition: Any) -> str | Refused:
        tag = token_hex(12)
        item = {
            "id": {"S": record_id},
            "record": {"S": text},
            "tag": {"S": tag},
            "expires_at": {"N": str(expires_at)},
        }
        try:
            self._client.get().put_item(
                TableName=self._table, Item=item, ReturnValuesOnConditionCheckFailure="ALL_OLD", **condition
            )
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in ("TransactionConflictException", "ReplicatedWriteConflictException"):
                return Refused()
            if code != "ConditionalCheckFailedException":
                raise unavailable(self.url, error) from error
            found = _stored(error.response.get("Item"))
            if found is not None and found.tag == tag:
                return tag  # written by an earlier try of the SDK, whose answer was lost
            return Refused(found)
        except BotoCoreError as error:
            raise unavailable(self.url, error) from error
        return tag


def _stored(item: Any) -> Stored | None:
    if not item:
        return None
    try:
        return Stored(item["record"]["S"], item["tag"]["S"])
    except (KeyError, TypeError):
        # An item of another program under this id: if it read as absent, it would be overwritten.
        return Stored("", "")
