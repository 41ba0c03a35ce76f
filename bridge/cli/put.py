"""``brigade put``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.exit_codes import errors_reported, exit_incomplete
from bridge.cli.options import QueueUrl, choose_queue, client_for, queue_settings
from bridge.text import printable

if TYPE_CHECKING:
    from bridge.s3.event import ObjectRecord
    from bridge.sqs.queues import Queue

#: From this size on the upload goes in parts, and S3 calls the event so.
_PARTS_FROM_BYTES = 8 * 1024 * 1024


@click.command(
    "put",
    epilog="""Examples:

\b
  brigade put report.csv s3://uploads-eu/incoming/
  brigade put report.csv s3://uploads-eu/incoming/a.csv --no-event
  BRIDGE_ALLOWED_BUCKETS=uploads-eu brigade put report.csv""",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path))
@click.argument("url", required=False, metavar="[S3://BUCKET/KEY]")
@click.option(
    "--event/--no-event",
    default=None,
    help="Send the event, or leave it to the bucket. Default: send it unless the bucket announces the object itself.",
)
@click.option("--queue", type=QueueUrl(), help="Where the event goes: a queue of the settings, or any queue's URL.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def command(file: Path, url: str | None, event: bool | None, queue: str | None, as_json: bool) -> int:
    """Upload FILE, and send its event where the bucket does not.

    A URL that ends with a slash, or names only the bucket, gets the file's name. Without a URL the bucket is
    BRIDGE_ALLOWED_BUCKETS, where that names one. Whether the bucket announces the object is read from its notification
    configuration (s3:GetBucketNotification) before the upload.
    """
    from bridge.s3.clients import s3_client

    with errors_reported():
        bucket, key = _destination(url, file.name)
        name = "ObjectCreated:" + ("Put" if file.stat().st_size < _PARTS_FROM_BYTES else "CompleteMultipartUpload")
        settings = queue_settings(queue)
        s3 = s3_client(settings.region)
        target = None if event is False else choose_queue(settings, queue)
        sqs = None if target is None else client_for(settings)
        note = "no event was asked for"
        if event is None and target is not None:
            target, note = _not_announced(s3, sqs, bucket, key, name, target)
        _upload(s3, file, bucket, key)
        try:
            record = _uploaded(s3, bucket, key, name)
            message_id = None if target is None else _send(sqs, target, record)
        except BaseException:  # Ctrl-C too: nothing else would send the event of this object
            if target is not None:
                text = f"s3://{bucket}/{printable(key)} is uploaded, and no event is known to be sent: put it again"
                click.echo(f"brigade: {text}", err=True)
            raise
        if as_json:
            sent = {"queue": target.url, "message_id": message_id} if target else None
            click.echo(json.dumps({**record.to_dict(), "event": sent, "note": None if sent else note}))
        else:
            click.echo(f"uploaded s3://{bucket}/{printable(key)} ({record.size:,} bytes)")
            click.echo(f"sent its event to {target.name}: {message_id}" if target else f"sent no event: {note}")
        return 0


def _destination(url: str | None, file_name: str) -> tuple[str, str]:
    from bridge.text import shown

    if url is None:
        bucket, key = _only_bucket(), ""
    else:
        if not url.startswith("s3://"):
            raise click.UsageError(f"{shown(url)}: must be s3://bucket/key")
        bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise click.UsageError("where to? Give s3://bucket/key, or set BRIDGE_ALLOWED_BUCKETS to one bucket")
    if not key or key.endswith("/"):
        key += file_name
    if len(key.encode("utf-8", "surrogatepass")) > 1024 or "\0" in key:
        raise click.UsageError(f"{shown(key)}: S3 takes no such key, it has at most 1,024 bytes")
    return bucket, key


def _only_bucket() -> str:
    import os

    from bridge.settings.rules import in_force

    names = in_force(os.environ).get("BRIDGE_ALLOWED_BUCKETS", "")
    return "" if set(names) & set("*?[,") else names


def _not_announced(s3: Any, sqs: Any, bucket: str, key: str, event_name: str, queue: Queue) -> tuple[Queue | None, str]:
    """Return the queue when the bucket does not announce the object to it, else None and why no event is sent."""
    from bridge.aws_errors import ACCESS_DENIED, HEAD_DENIED, NOT_IMPLEMENTED, error_code
    from bridge.s3.notification import announced
    from bridge.sqs.queue_lookup import attributes_of

    arn = attributes_of(sqs, queue.url).get("QueueArn", "")
    try:
        configuration = s3.get_bucket_notification_configuration(Bucket=bucket)
    except Exception as error:
        if error_code(error) in ACCESS_DENIED | HEAD_DENIED | NOT_IMPLEMENTED:
            raise click.UsageError(
                f"whether {bucket} announces the object cannot be read ({error_code(error)}, "
                "s3:GetBucketNotification): say --event or --no-event"
            ) from error
        raise
    answer = announced(configuration, key, event_name, arn)
    if answer == "yes":
        return None, f"the bucket itself notifies {queue.name}"
    if answer == "perhaps":
        return None, "the bucket notifies SNS or EventBridge, which may lead to the queue (--event sends one anyway)"
    return queue, ""


def _upload(s3: Any, file: Path, bucket: str, key: str) -> None:
    from boto3.exceptions import S3UploadFailedError
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(multipart_threshold=_PARTS_FROM_BYTES)
    try:
        s3.upload_file(str(file), bucket, key, Config=config)
    except S3UploadFailedError as error:
        # boto3 puts the SDK's error into the text of its own.
        if isinstance(error.__cause__ or error.__context__, Exception):
            raise (error.__cause__ or error.__context__ or error) from None
        raise exit_incomplete(" ".join(str(error).split())) from error


def _uploaded(s3: Any, bucket: str, key: str, event_name: str) -> ObjectRecord:
    """Ask for what upload_file does not return: eTag and version, by which the task reads exactly these bytes."""
    from bridge.s3.event import ObjectRecord
    from bridge.s3.event_body import event_time

    head = s3.head_object(Bucket=bucket, Key=key)
    version = head.get("VersionId")
    return ObjectRecord(
        bucket=bucket,
        key=key,
        version_id=None if version == "null" else version,
        etag=head["ETag"].strip('"'),
        size=head["ContentLength"],
        event_name=event_name,
        event_time=event_time(head["LastModified"]),
        region=s3.meta.region_name,
    )


def _send(sqs: Any, queue: Queue, record: ObjectRecord) -> str:
    from bridge.s3.event_body import put_event_body

    answer = sqs.send_message(QueueUrl=queue.url, MessageBody=put_event_body(record))
    return str(answer["MessageId"])
