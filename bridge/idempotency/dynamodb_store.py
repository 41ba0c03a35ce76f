"""Records as items of DynamoDB: ``dynamodb://table``, partition key ``id`` (a string), TTL attribute ``expires_at``.

A refused write brings the item that is there along (ReturnValuesOnConditionCheckFailure), so one call tells of a repeat
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

#: As for the S3 store; DynamoDB answers in milliseconds, and another of its hosts is soon asked.
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
        """Ask nothing yet: a client is made by the first call of each process."""
        self.url = f"dynamodb://{table}"
        self._table = table
        self._client: PerProcess[Any] = PerProcess(lambda session: session.client("dynamodb", region, config=CONFIG))

    def read(self, record_id: str) -> Stored | None:
        """As the protocol says: one GetItem."""
        try:
            answer = self._client.get().get_item(
                TableName=self._table, Key={"id": {"S": record_id}}, ConsistentRead=True
            )
        except (ClientError, BotoCoreError) as error:
            raise unavailable(self.url, error) from error
        return _stored(answer.get("Item"))

    def create(self, record_id: str, text: str, expires_at: int) -> str | Refused:
        """As the protocol says: one PutItem."""
        return self._put(record_id, text, expires_at, ConditionExpression="attribute_not_exists(id)")

    def replace(self, record_id: str, text: str, tag: str, expires_at: int) -> str | Refused:
        """As the protocol says: one PutItem."""
        return self._put(
            record_id,
            text,
            expires_at,
            ConditionExpression="tag = :tag",
            ExpressionAttributeValues={":tag": {"S": tag}},
        )

    def records(self, folder: str) -> Iterator[tuple[str, str | None]]:
        """As the protocol says: a Scan (dynamodb:Scan) of the whole table, a megabyte a call, with the texts.

        Ids are partition keys, which no Query takes by their beginning; the filter saves traffic and no read units.
        """
        pages = self._client.get().get_paginator("scan")
        try:
            for page in pages.paginate(
                TableName=self._table,
                ConsistentRead=True,  # else a run that has just completed may still read as unfinished
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
                return tag  # written by a first try of the SDK's, of which the answer was lost
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
        # An item of somebody else's under our id: reading it as absent would have it overwritten.
        return Stored("", "")
