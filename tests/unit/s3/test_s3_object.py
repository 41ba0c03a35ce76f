"""S3Object without a server: as a Celery argument, the seam for tests, and the client of a process."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json as kombu_json

from bridge.s3 import clients as s3_clients
from bridge.s3.clients import forget_clients, s3_client
from bridge.s3.object import S3Object, current_source, use_source
from bridge.s3.reader import S3_SOURCE, read_arguments
from bridge.s3.types import ObjectHead

records = st.builds(
    S3Object,
    bucket=st.text(min_size=1),
    key=st.text(min_size=1),
    version_id=st.none() | st.text(),
    etag=st.none() | st.text(),
    size=st.none() | st.integers(0),
    sequencer=st.none() | st.text(),
    event_time=st.none() | st.text(),
    region=st.none() | st.text(),
    allow_changed=st.booleans(),
)


@given(records)
def test_travels_as_a_celery_argument(obj):
    """Kombu's JSON carries any object, and from_dict gives the same one back."""
    assert S3Object.from_dict(kombu_json.loads(kombu_json.dumps([obj]))[0]) == obj


def test_allow_changed_is_said_only_when_on():
    """The option is in to_dict when it is on, and nothing is when it is not set."""
    obj = S3Object(bucket="b", key="k")
    assert obj.to_dict() == {"bucket": "b", "key": "k", "event_name": "ObjectCreated:Put"}
    assert replace(obj, allow_changed=True).to_dict() == {**obj.to_dict(), "allow_changed": True}


def test_from_dict_takes_what_a_newer_version_sends():
    """A name from_dict does not know is left out."""
    assert S3Object.from_dict({"bucket": "b", "key": "k", "colour": "red"}) == S3Object(bucket="b", key="k")


@pytest.mark.parametrize("record", [{}, {"bucket": "b"}, {"bucket": "b", "key": ""}, {"bucket": 1, "key": "k"}])
def test_from_dict_needs_bucket_and_key(record):
    """Without a bucket and a key there is no object."""
    with pytest.raises(ValueError, match=r"needs a (bucket|key)"):
        S3Object.from_dict(record)


def test_is_shown_by_its_url():
    """The text of an object is its S3 URL, with the key as it is."""
    assert str(S3Object(bucket="b", key="ä b/+%25.csv")) == "s3://b/ä b/+%25.csv"


@pytest.mark.parametrize(
    ("version_id", "etag", "identity"),
    [
        ("v1", "e", {"VersionId": "v1"}),
        (None, "e", {"IfMatch": '"e"'}),
        ("", "e", {"IfMatch": '"e"'}),
        ("null", "e", {"VersionId": "null", "IfMatch": '"e"'}),
        ("null", None, {"VersionId": "null"}),
        (None, None, {}),
    ],
)
def test_asks_for_the_object_announced(version_id, etag, identity):
    """The version id decides; the eTag where there is none, or where it is one that can be overwritten."""
    obj = S3Object(bucket="b", key="k", version_id=version_id, etag=etag)
    assert read_arguments(obj) == {"Bucket": "b", "Key": "k", **identity}


class LocalSource:
    """A source that knows one object, as bridge.testing has one."""

    def open(self, obj):
        return io.BytesIO(b"local")

    def download(self, obj, path):
        path.write_bytes(b"local")

    def head(self, obj):
        return ObjectHead(
            size=5,
            etag="e",
            content_type=None,
            metadata={},
            last_modified=datetime(2026, 1, 1, tzinfo=UTC),
            version_id=None,
            storage_class="STANDARD",
        )


def test_another_source_can_stand_in(tmp_path):
    """Inside use_source reads go to that source, after it to S3 again, also when the block failed."""
    obj = S3Object(bucket="b", key="local")
    with pytest.raises(ZeroDivisionError), use_source(LocalSource()):
        assert obj.open().read() == b"local"
        assert obj.download(tmp_path / "x").read_bytes() == b"local"
        assert obj.head()["size"] == 5
        1 / 0  # noqa: B018 - raises
    assert current_source() is S3_SOURCE


def test_a_download_stopped_by_a_time_limit_leaves_nothing(tmp_path):
    """Whatever ends a download, an exception from outside included, the part file goes."""

    class Stopped(LocalSource):
        def download(self, obj, path):
            path.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), use_source(Stopped()):
        S3Object(bucket="b", key="k").download(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def new_clients():
    """Let a test start and end without a client of this process."""
    forget_clients()
    yield
    forget_clients()


@pytest.mark.parametrize(
    ("environment", "record", "region"),
    [
        ({"AWS_REGION": "eu-west-1"}, "eu-north-1", "eu-north-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"}, None, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "eu-west-2"}, None, "eu-west-2"),
        ({"AWS_PROFILE": "work"}, None, "eu-west-3"),
        ({}, None, "us-east-1"),
    ],
)
def test_the_region_of_the_client(new_clients, monkeypatch, tmp_path, environment, record, region):
    """The record's region, else AWS_REGION, else AWS_DEFAULT_REGION, else the profile's, else us-east-1."""
    (tmp_path / "config").write_text("[profile work]\nregion = eu-west-3\n")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert s3_client(record).meta.region_name == region


def test_threads_share_one_client(new_clients):
    """However many threads ask at once, a process has one client for a region."""
    barrier = threading.Barrier(8)
    clients = []

    def ask():
        barrier.wait()
        clients.append(s3_client("eu-west-1"))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == 8
    assert len(set(map(id, clients))) == 1


def run_python(code):
    """Run ``code`` in a fresh interpreter; fail with what it printed."""
    root = Path(s3_clients.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_forked_child_makes_its_own_client():
    """A child has another client than its parent, even when the lock was held at the moment of the fork."""
    run_python("""
import os
from bridge.s3 import clients as s3_clients
before = s3_clients.s3_client("eu-west-1")
with s3_clients._clients._lock:
    child = os.fork()
    if child == 0:
        os._exit(0 if s3_clients.s3_client("eu-west-1") is not before else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert s3_clients.s3_client("eu-west-1") is before
""")


def test_importing_takes_no_boto3():
    """S3Object can be imported without the weight of boto3."""
    run_python("""
import sys
import bridge.s3.object
assert "boto3" not in sys.modules, "imported"
""")
