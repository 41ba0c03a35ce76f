"""``obj.put_once``: an effect made once, whatever happens around it; against moto's S3, and in bridge.testing."""

from __future__ import annotations

import io
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from botocore.handlers import add_expect_header

from bridge.errors import ObjectGone
from bridge.s3.clients import s3_client
from bridge.s3.object import S3Object, current_source
from bridge.s3.reader import S3_SOURCE
from bridge.testing import run_event, s3_event, s3_object

OBJ = S3Object(bucket="uploads", key="in/a")


@pytest.fixture
def s3(aws, proxy):
    """The client of this process; it does not wait a second for the "100 Continue" that the proxy never sends."""
    s3_client().meta.events.unregister("before-call.s3", add_expect_header)
    return aws.s3


@pytest.fixture
def url(aws):
    """The address of an object that does not exist yet."""
    return f"s3://{aws.bucket}/out/{uuid.uuid4().hex} ü+%.json"


def stored(s3, url):
    """The answer of a GET, and its bytes."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    answer = s3.get_object(Bucket=bucket, Key=key)
    with answer["Body"] as body:
        return answer, body.read()


def test_the_first_call_writes_and_the_second_does_not(s3, url):
    """And what the first wrote stays."""
    assert OBJ.put_once(url, b"first") is True
    assert OBJ.put_once(url, b"second") is False
    assert stored(s3, url)[1] == b"first"


def test_an_object_that_was_there_is_not_overwritten(s3, aws, url):
    """Whoever wrote it."""
    s3.put_object(Bucket=aws.bucket, Key=url.removeprefix(f"s3://{aws.bucket}/"), Body=b"theirs")
    assert OBJ.put_once(url, b"ours") is False
    assert stored(s3, url)[1] == b"theirs"


@pytest.mark.parametrize(
    ("body", "expected"),
    [(b"\x00\xff", b"\x00\xff"), ("ü\n", "ü\n".encode()), (io.BytesIO(b"from a file"), b"from a file"), (b"", b"")],
    ids=["bytes", "text", "file", "empty"],
)
def test_bytes_text_and_files(s3, url, body, expected):
    """Text is UTF-8; what is no text keeps every byte."""
    assert OBJ.put_once(url, body) is True
    assert stored(s3, url)[1] == expected


def test_a_real_file_from_where_it_stands(s3, url, tmp_path):
    """As S3's own clients do it."""
    path = tmp_path / "rows"
    path.write_bytes(b"head,rows")
    with path.open("rb") as file:
        file.seek(5)
        assert OBJ.put_once(url, file) is True
    assert stored(s3, url)[1] == b"rows"


def test_content_type_and_metadata(s3, url):
    """Go with the object."""
    OBJ.put_once(url, "{}", content_type="application/json", metadata={"source": "in/a"})
    answer, _ = stored(s3, url)
    assert answer["ContentType"] == "application/json"
    assert answer["Metadata"] == {"source": "in/a"}


def test_of_twenty_threads_one_writes(s3, url):
    """S3 decides, so exactly one is told so, and its bytes are there."""
    barrier = threading.Barrier(20)

    def put(number):
        barrier.wait(30)
        return OBJ.put_once(url, f"by {number}")

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(put, range(20)))
    assert answers.count(True) == 1
    assert stored(s3, url)[1] == f"by {answers.index(True)}".encode()


@pytest.mark.parametrize("body", ["text", io.BytesIO(b"text")], ids=["text", "file"])
def test_a_conflict_is_tried_again(s3, proxy, url, body):
    """409: another conditional write of the key was under way; a file is sent from where it stood."""
    proxy.fail(status=409, code="ConditionalRequestConflict", times=2)
    assert OBJ.put_once(url, body) is True
    assert stored(s3, url)[1] == b"text"


def test_conflicts_without_end_are_an_error(s3, proxy, url):
    """The task is retried, and may find it written."""
    proxy.fail(status=409, code="ConditionalRequestConflict", times=None)
    with pytest.raises(ClientError, match="ConditionalRequestConflict"):
        OBJ.put_once(url, "text")
    assert len([call for call in proxy.calls if call.status == 409]) >= 5


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (400, "InvalidRequest")])
def test_a_refusal_is_never_taken_for_written(s3, proxy, url, status, code):
    """Only "it is there already" is False; everything else is the SDK's own error."""
    proxy.fail(status=status, code=code, times=None)
    with pytest.raises(ClientError, match=code):
        OBJ.put_once(url, "text")


def test_a_bucket_that_is_not_there(s3):
    """An error, not False."""
    with pytest.raises(ClientError, match="NoSuchBucket"):
        OBJ.put_once("s3://no-such-bucket-here/k", "text")


WRONG_URLS = ["", "s3://", "s3://bucket", "s3://bucket/", "s3:///key", "bucket/key", "https://bucket/key", "S3://b/k"]


@pytest.mark.parametrize("wrong", WRONG_URLS)
def test_another_kind_of_url_is_refused(wrong):
    """Before anything is sent."""
    with pytest.raises(ValueError, match="put_once writes to s3://bucket/key"):
        OBJ.put_once(wrong, "text")


# ---- bridge.testing


def test_in_a_test_the_objects_are_the_tests_own():
    """Written once, and there to be looked at, without a server."""
    obj = s3_object("a", "in/a", bucket="b")
    assert obj.put_once("s3://b/out/a", "result") is True
    assert obj.put_once("s3://b/out/a", io.BytesIO(b"other")) is False
    assert obj.put_once("s3://b/in/a", "over the upload") is False
    with S3Object(bucket="b", key="out/a").open() as body:
        assert body.read() == b"result"


def test_what_a_test_wrote_is_gone_after_it():
    """The test before this one wrote the same key."""
    obj = s3_object("a", "in/a", bucket="b")
    with pytest.raises(ObjectGone):
        S3Object(bucket="b", key="out/a").open()
    assert obj.put_once("s3://b/out/a", io.BytesIO(b"file")) is True
    with S3Object(bucket="b", key="out/a").open() as body:
        assert body.read() == b"file"


def test_an_object_made_after_a_task_has_written_is_the_tests_own_too(monkeypatch):
    """The order of the two must not send a read to S3."""
    from bridge.celery import app
    from bridge.task import decorators, registry

    monkeypatch.setattr(registry, "_declared", {})  # a task of another test's may take every object
    name = "test_put_once.task"

    @decorators.file_task("put-once/*", name=name)
    def work(obj):
        return obj.put_once("s3://b/out/a", "result")

    try:
        assert run_event(s3_event("put-once/a")).result is True
        obj = s3_object("a", "in/a", bucket="b")
        assert current_source() is not S3_SOURCE
        with obj.open() as body:
            assert body.read() == b"a"
    finally:
        del app.tasks[name]
