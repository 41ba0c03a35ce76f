"""One large object through ``tasks.describe``: MB/s over a plain streaming hash of the same bytes, and peak memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks import REPOSITORY
from benchmarks.figures import environments
from benchmarks.figures.object_server import VERSION, etag_of, object_key
from benchmarks.figures.stage import (
    MEGABYTE,
    Stage,
    event,
    memory_mb,
    ours,
    parent_and_children,
    run_alone,
    spread,
    stage,
    wait_for,
    worker,
)
from benchmarks.peers.place import AWS_ENV
from benchmarks.runner.measure import Process
from benchmarks.runner.quiet import MACHINE
from tasks.describe import manifest_key
from tests.support.servers.process import running_server

SIZE_MB = 1_000
QUICK_MB = 200
#: ``text`` is validated as UTF-8 and its lines are counted beside the hash; of ``binary`` there is only the hash.
KINDS = ("binary", "text")
BUCKET, RESULTS = "uploads", "results"
TASK = "tasks.describe.describe"
TARGETS = {"over_plain": 0.8, "peak_over_idle_mb": 40.0}

#: What one writes for it without the bridge, in a process of its own; the client is made and has connected before.
PLAIN = """
import boto3, hashlib, sys, time
s3 = boto3.client("s3")
def read(key):
    digest = hashlib.sha256()
    for chunk in s3.get_object(Bucket="uploads", Key=key)["Body"].iter_chunks(1024 * 1024):
        digest.update(chunk)
    return digest.hexdigest()
read(sys.argv[1])
start, cpu = time.perf_counter(), time.process_time()
digest = read(sys.argv[2])
print(time.perf_counter() - start, time.process_time() - cpu, digest)
"""


def big_object(rounds: int = 3, quick: bool = False, size_mb: int | None = None) -> dict[str, Any]:
    """1 GB (200 MB with ``quick``) through ``tasks.describe`` in a prefork child, binary and text, over a plain hash.

    The time of ours is what the worker itself reports as the run's (``bridge_task_seconds``): head, stream and the
    write of the manifest. Both sides have read a small object before. Each round has a worker of its own, whose child's
    highest RSS is taken after both objects, over that of the idle child; the clients of the small object count in it.
    """
    size_bytes = (size_mb if size_mb is not None else (QUICK_MB if quick else SIZE_MB)) * MEGABYTE
    rounds = 1 if quick else rounds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        server = [sys.executable, "-m", "benchmarks.figures.object_server"]
        environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY)}
        log = folder / "objects.log"
        s3_url = stack.enter_context(running_server(server, r"ready (http://\S+)", log, environment))
        seen = [MACHINE.measure(partial(_one_round, s3_url, size_bytes)) for _ in range(rounds)]
    idle, peak = [one.idle_mb for one in seen], [one.peak_mb for one in seen]
    over_idle = spread([high - low for high, low in zip(peak, idle, strict=True)])
    kinds = {
        kind: {name: spread([one.kinds[kind][name] for one in seen]) for name in seen[0].kinds[kind]} for kind in KINDS
    }
    return {
        "figure": "big_object",
        "size_mb": size_bytes // MEGABYTE,
        "pool": "prefork",
        "concurrency": 1,
        "prefetch_multiplier": 1,
        "kinds": kinds,
        "idle_child_rss_mb": spread(idle),
        "peak_child_rss_mb": spread(peak),
        "peak_over_idle_mb": over_idle,
        "targets": TARGETS,
        "met": {
            "over_plain": {
                kind: found["over_plain"]["median"] >= TARGETS["over_plain"] for kind, found in kinds.items()
            },
            "peak_over_idle_mb": over_idle["median"] <= TARGETS["peak_over_idle_mb"],
        },
    }


@dataclass(frozen=True)
class Round:
    """What one worker did: RSS of its child in MB, and the figures of each kind of object."""

    idle_mb: float
    peak_mb: float
    kinds: dict[str, dict[str, float]]


def _one_round(s3_url: str, size_bytes: int) -> Round:
    kinds = {}
    with stage(0, s3_url=s3_url) as at, worker(_describing(at)) as process:
        child = parent_and_children(process, 1)[1][0]
        # Its first poll has gone out when the queue answers a receive, and the child has nothing to do then.
        wait_for(process, lambda: at.proxy.counts().get("ReceiveMessage"), 60, "the first poll")
        idle_mb = memory_mb(child)["rss_mb"]
        _run(at, process, object_key("text", 1_000), 0)
        for already, kind in enumerate(KINDS, start=1):
            key = object_key(kind, size_bytes)
            plain_seconds, plain_cpu, digest = _plain(s3_url, key)
            cpu = process.cpu_seconds()
            seconds = _run(at, process, key, already)
            cpu = process.cpu_seconds() - cpu
            _check(s3_url, key, digest, size_bytes)
            kinds[kind] = {
                "ours_mb_s": size_bytes / MEGABYTE / seconds,
                "plain_mb_s": size_bytes / MEGABYTE / plain_seconds,
                "over_plain": plain_seconds / seconds,
                "ours_cpu_s": cpu,
                "plain_cpu_s": plain_cpu,
            }
        return Round(idle_mb, memory_mb(child)["peak_rss_mb"], kinds)


def _describing(at: Stage) -> Any:
    settings = {"BRIDGE_TASK_MODULES": "tasks.describe", "BRIDGE_RESULTS_URL": f"s3://{RESULTS}/bench/"}
    return ours(at, "prefork", 1, 1, **settings)


def _run(at: Stage, process: Process, key: str, already: int) -> float:
    """Announce the object, wait for the end of its run, and return the run's seconds."""
    before = _task_seconds(at)[1]
    body = json.loads(event("noop", already))
    record = body["Records"][0]["s3"]
    record["bucket"].update(name=BUCKET, arn=f"arn:aws:s3:::{BUCKET}")
    record["object"].update(key=key, size=int(key.split("-")[1].split(".")[0]), eTag=etag_of(key), versionId=VERSION)
    at.queue.fill([json.dumps(body)])
    wait_for(process, lambda: _task_seconds(at)[0] > already, 300, f"the run for {key}")
    if at.queue.dead_letters():
        raise RuntimeError(f"{key} was dead-lettered")
    return _task_seconds(at)[1] - before


def _task_seconds(at: Stage) -> tuple[int, float]:
    """How many runs have ended, and the seconds they took together: the worker's own histogram."""
    with urllib.request.urlopen(f"http://127.0.0.1:{at.health_port}/metrics", timeout=10) as answer:
        lines = [line.split(" ") for line in answer.read().decode().splitlines()]
    found = {line[0]: float(line[1]) for line in lines if line[0].startswith("bridge_task_seconds_")}
    labels = f'{{task="{TASK}"}}'
    return int(found.get(f"bridge_task_seconds_count{labels}", 0)), found.get(f"bridge_task_seconds_sum{labels}", 0.0)


def _plain(s3_url: str, key: str) -> tuple[float, float, str]:
    env = {**AWS_ENV, "AWS_ENDPOINT_URL_S3": s3_url, "PATH": "/usr/bin:/bin"}
    command = [str(environments.core_python()), "-c", PLAIN, object_key("text", 1_000), key]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env, timeout=300)
    seconds, cpu, digest = done.stdout.split()
    return float(seconds), float(cpu), digest


def _check(s3_url: str, key: str, digest: str, size_bytes: int) -> None:
    """The manifest must say of the object what the plain hash has found, else the two did not do the same work."""
    name = manifest_key("bench/", BUCKET, key, version_id=VERSION, etag=etag_of(key))
    with urllib.request.urlopen(f"{s3_url}/{RESULTS}/{quote(name, safe='/~')}", timeout=10) as answer:  # noqa: S310
        manifest = json.load(answer)
    if (manifest["sha256"], manifest["size"]) != (digest, size_bytes) or (key[0] == "t") != bool(manifest["lines"]):
        raise RuntimeError(f"the manifest of {key} is not that of the bytes sent: {manifest}")


if __name__ == "__main__":
    run_alone(big_object, {"size_mb": (int, "size of the object in MB of 10^6 (default 1000; 200 with --quick)")})
