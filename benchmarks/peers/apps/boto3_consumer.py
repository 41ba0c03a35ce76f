"""Two loops around boto3: the one that is written first, and the one that is written when it has become too slow."""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any

import boto3
import work
from botocore.config import Config

QUEUE = os.environ["BENCH_QUEUE_URL"]


def run(workload: str, message: dict[str, Any], s3: Any) -> None:
    """Do a message's work."""
    if workload == "sleep":
        work.sleep()
    elif workload == "cpu":
        work.cpu()
    elif workload == "hash":
        record = json.loads(message["Body"])["Records"][0]["s3"]
        answer = s3.get_object(
            Bucket=record["bucket"]["name"], Key=record["object"]["key"], IfMatch=record["object"]["eTag"]
        )
        with answer["Body"] as body:
            work.hash_stream(body)


def naive(workload: str) -> None:
    """Receive ten, run them, delete one by one."""
    sqs, s3 = boto3.client("sqs"), boto3.client("s3")
    while True:
        for message in sqs.receive_message(QueueUrl=QUEUE, MaxNumberOfMessages=10, WaitTimeSeconds=20).get(
            "Messages", ()
        ):
            run(workload, message, s3)
            sqs.delete_message(QueueUrl=QUEUE, ReceiptHandle=message["ReceiptHandle"])


def tuned(workload: str, sqs: Any, s3: Any) -> None:
    """Receive ten, run them, delete them with one call: what each thread does."""
    while True:
        answer = sqs.receive_message(QueueUrl=QUEUE, MaxNumberOfMessages=10, WaitTimeSeconds=20)
        done = []
        for message in answer.get("Messages", ()):
            run(workload, message, s3)
            done.append({"Id": str(len(done)), "ReceiptHandle": message["ReceiptHandle"]})
        if done:
            sqs.delete_message_batch(QueueUrl=QUEUE, Entries=done)


def main() -> None:
    """Consume until killed: ``boto3_consumer.py WORKLOAD THREADS``, with 0 threads for the naive loop."""
    workload, threads = sys.argv[1], int(sys.argv[2])
    if not threads:
        naive(workload)
    config = Config(max_pool_connections=threads)
    sqs, s3 = boto3.client("sqs", config=config), boto3.client("s3", config=config)
    for _ in range(threads):
        threading.Thread(target=tuned, args=(workload, sqs, s3)).start()


if __name__ == "__main__":
    main()
