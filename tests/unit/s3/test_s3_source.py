"""Reading S3 through real HTTP servers: moto for S3's rules, and a scripted one for broken connections."""

from __future__ import annotations

import io
import logging
import os
import socket
import threading
import tracemalloc
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from moto.server import ThreadedMotoServer

from bridge.errors import ObjectChanged, ObjectGone
from bridge.s3.clients import forget_clients, s3_client
from bridge.s3.object import S3Object
from bridge.s3.reader import BUFFER_BYTES

BUCKET = "uploads-test"
VERSIONED = "versioned-test"


@pytest.fixture(scope="module")
def moto_server():
    """A moto server that this process's clients talk to, with one plain and one versioned bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line for every request otherwise
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        point_to(patch, f"http://{host}:{port}")
        for bucket in (BUCKET, VERSIONED):
            s3_client().create_bucket(Bucket=bucket)
        s3_client().put_bucket_versioning(Bucket=VERSIONED, VersioningConfiguration={"Status": "Enabled"})
        yield
    server.stop()
    forget_clients()


def point_to(patch, url):
    """Let the S3 clients of this process talk to the server at ``url``."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_CONFIG_FILE"):
        patch.delenv(name, raising=False)
    for name, value in {
        "AWS_ENDPOINT_URL_S3": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        patch.setenv(name, value)
    forget_clients()


@pytest.fixture
def elsewhere(monkeypatch):
    """Point the clients of this process to another URL for one test."""
    yield lambda url: point_to(monkeypatch, url)
    monkeypatch.undo()
    forget_clients()


@pytest.fixture
def s3(moto_server):
    """The process's own client, talking to moto."""
    return s3_client()


def put(s3, key, body, bucket=BUCKET, **more):
    """Store an object and return it as its event would announce it."""
    answer = s3.put_object(Bucket=bucket, Key=key, Body=body, **more)
    return S3Object(
        bucket=bucket, key=key, size=len(body), etag=answer["ETag"].strip('"'), version_id=answer.get("VersionId")
    )


def sent(s3, operation):
    """A list that gets the headers of every request of ``operation`` from now on."""
    seen = []
    s3.meta.events.register(f"before-send.s3.{operation}", lambda request, **_: seen.append(request.headers))
    return seen


@pytest.mark.parametrize("key", ["plain.txt", "a b+c%25/ü.txt", "a/../b", "./a//b", "/lead", "..."])
def test_reads_any_key(s3, key):
    """The key reaches S3 as it is, whatever characters it has."""
    with put(s3, key, key.encode()).open() as body:
        assert body.read() == key.encode()


def test_the_stream_is_a_file_of_lines(s3):
    """Lines, pieces, the rest and text all come out of the stream as out of a file."""
    obj = put(s3, "lines.txt", "äöü\n".encode() * 3 + b"last")
    with obj.open() as body:
        assert list(body) == ["äöü\n".encode()] * 3 + [b"last"]
    assert body.closed
    with obj.open() as body:
        assert body.readline() + body.read(3) + body.read() == "äöü\n".encode() * 3 + b"last"
    with io.TextIOWrapper(obj.open(), encoding="utf-8") as text:
        assert text.read() == "äöü\n" * 3 + "last"


def test_reads_of_all_kinds_follow_each_other(s3):
    """Large reads, which pass by the buffer, and lines and small reads, which do not, lose and repeat no byte."""
    content = b"".join(b"%07d\n" % n for n in range(BUFFER_BYTES))  # 8 MiB
    with put(s3, "mixed", content).open() as body:
        read = [body.read(BUFFER_BYTES), body.read(BUFFER_BYTES + 3), body.readline(), body.read(BUFFER_BYTES)]
        read += [body.read(9), body.read(2 * BUFFER_BYTES), body.read(BUFFER_BYTES + 1), next(body), body.peek(1)[:0]]
        position = body.tell()
        assert position == sum(map(len, read))
        read += [body.read(8 * BUFFER_BYTES), body.read(BUFFER_BYTES), body.read()]
    assert b"".join(read) == content
    assert [len(piece) for piece in read[:4]] == [BUFFER_BYTES, BUFFER_BYTES + 3, 5, BUFFER_BYTES]
    assert read[-2:] == [b"", b""]


def test_an_empty_object_is_an_empty_stream(s3, tmp_path):
    """No bytes are no error, neither streamed nor downloaded."""
    obj = put(s3, "empty", b"")
    assert obj.open().read() == b""
    assert list(obj.open()) == []
    assert obj.download(tmp_path / "empty").read_bytes() == b""


def test_head_says_what_s3_knows(s3):
    """Size, eTag without quotes, content type, user metadata, time with zone, version and storage class."""
    obj = put(
        s3, "head", b"four", VERSIONED, ContentType="text/x", Metadata={"colour": "red"}, StorageClass="GLACIER_IR"
    )
    head = obj.head()
    age = datetime.now(UTC) - head.pop("last_modified")
    assert abs(age.total_seconds()) < 60
    assert head == {
        "size": 4,
        "etag": obj.etag,
        "content_type": "text/x",
        "metadata": {"colour": "red"},
        "version_id": obj.version_id,
        "storage_class": "GLACIER_IR",
    }
    plain = put(s3, "head", b"four").head()
    assert (plain["version_id"], plain["storage_class"]) == (None, "STANDARD")


READS = {
    "open": lambda obj, _: obj.open(),
    "head": lambda obj, _: obj.head(),
    "download": lambda obj, path: obj.download(path / "x"),
    "download of unknown size": lambda obj, path: replace(obj, size=None).download(path / "x"),
}
reads = pytest.mark.parametrize("read", READS.values(), ids=READS)


@reads
def test_gone(s3, tmp_path, read):
    """A missing key, bucket or version and a delete marker are ObjectGone, which names the object."""
    versioned = put(s3, "gone", b"x", VERSIONED)
    marker = s3.delete_object(Bucket=VERSIONED, Key="gone")["VersionId"]
    for obj in (
        S3Object(bucket=BUCKET, key="missing", etag="e", size=1),
        S3Object(bucket="no-such-bucket", key="gone", size=1),
        replace(versioned, version_id="00000000-0000-0000-0000-000000000000"),
        replace(versioned, version_id=marker),
        replace(versioned, version_id=None),
    ):
        with pytest.raises(ObjectGone, match=obj.url):
            read(obj, tmp_path)
    assert list(tmp_path.iterdir()) == []


@reads
def test_changed(s3, tmp_path, read):
    """An object overwritten since its event is ObjectChanged, which names it."""
    obj = put(s3, "changed", b"old")
    put(s3, "changed", b"new one")
    with pytest.raises(ObjectChanged, match=obj.url):
        read(obj, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_allow_changed_reads_the_new_object(s3, tmp_path):
    """With allow_changed the overwritten object is read as it is now; a missing one is gone all the same."""
    obj = replace(put(s3, "changed", b"old"), allow_changed=True)
    put(s3, "changed", b"new one")
    assert obj.open().read() == b"new one"
    assert obj.head()["size"] == 7
    assert obj.download(tmp_path / "x").read_bytes() == b"new one"
    s3.delete_object(Bucket=BUCKET, Key="changed")
    with pytest.raises(ObjectGone):
        obj.open()


def test_a_version_outlives_its_successor(s3):
    """In a versioned bucket the announced version is read, though a newer one is there."""
    obj = put(s3, "versions", b"first", VERSIONED)
    put(s3, "versions", b"second", VERSIONED)
    assert obj.open().read() == b"first"
    assert obj.head()["size"] == 5


def test_other_refusals_pass_through(s3):
    """What is neither gone nor changed stays botocore's own error."""
    s3.put_object(Bucket=BUCKET, Key="frozen", Body=b"x", StorageClass="DEEP_ARCHIVE")
    with pytest.raises(ClientError, match="InvalidObjectState"):
        S3Object(bucket=BUCKET, key="frozen").open()


def test_download_replaces_the_file_that_is_there(s3, tmp_path):
    """The target is replaced, its path returned, its name may be 255 bytes long, and nothing else is left."""
    target = tmp_path / ("n" * 255)
    target.write_bytes(b"before")
    assert put(s3, "download", b"after").download(str(target)) == target
    assert target.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture
def big(moto_server):
    """A new client to put hooks on, an object that comes in three parts, and the bytes it has."""
    forget_clients()
    s3 = s3_client()
    body = os.urandom(1024) * (17 * 1024)
    yield s3, put(s3, "big", body), body
    forget_clients()


@pytest.mark.parametrize("known", ["version", "etag", "nothing"])
def test_a_big_object_comes_in_parts_of_the_same_object(tmp_path, big, known):
    """Every range of a parallel download asks for the same eTag, and for the version where the event has one."""
    s3, obj, body = big
    if known == "version":
        obj = put(s3, "big", body, VERSIONED)
        put(s3, "big", bytes(len(body)), VERSIONED)
    if known == "nothing":
        obj = S3Object(bucket=obj.bucket, key=obj.key)
    gets, heads = sent(s3, "GetObject"), sent(s3, "HeadObject")
    assert obj.download(tmp_path / "big").read_bytes() == body
    assert sorted(headers["Range"] for headers in gets) == [
        b"bytes=0-8388607", b"bytes=16777216-", b"bytes=8388608-16777215"
    ]  # fmt: skip
    assert len({headers["If-Match"] for headers in gets}) == 1
    assert len(heads) == 1  # a second one, of the transfer manager's own, could see another object
    assert list(tmp_path.iterdir()) == [tmp_path / "big"]


def once_before_parts(s3, act):
    """Let ``act`` happen when the first part is about to be asked for, after the HEAD."""
    lock = threading.Lock()
    done = []

    def hook(**_):
        with lock:
            if not done:
                done.append(True)
                act()

    s3.meta.events.register("before-send.s3.GetObject", hook)


def test_overwritten_between_the_parts(tmp_path, big):
    """A big object overwritten during its download is ObjectChanged, never a mixture."""
    s3, obj, _ = big
    once_before_parts(s3, lambda: put(s3, "big", bytes(17 * 1024 * 1024)))
    with pytest.raises(ObjectChanged, match=obj.url):
        obj.download(tmp_path / "big")
    assert list(tmp_path.iterdir()) == []


def test_overwritten_between_the_parts_and_allowed(tmp_path, big):
    """With allow_changed the download starts again and is of the new object throughout."""
    s3, obj, _ = big
    once_before_parts(s3, lambda: put(s3, "big", bytes(17 * 1024 * 1024)))
    assert replace(obj, allow_changed=True).download(tmp_path / "big").read_bytes() == bytes(17 * 1024 * 1024)


def test_deleted_between_the_parts(tmp_path, big):
    """A big object deleted during its download is ObjectGone."""
    s3, obj, _ = big
    once_before_parts(s3, lambda: s3.delete_object(Bucket=BUCKET, Key="big"))
    with pytest.raises(ObjectGone, match=obj.url):
        obj.download(tmp_path / "big")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def scripted(elsewhere):
    """Start a server that answers every request with ``raw``, then ``piece`` so many ``times``, and hangs up."""
    listener = socket.create_server(("127.0.0.1", 0))
    answer = []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # the test is over
                return
            with connection, connection.makefile("rb") as request:
                while request.readline().strip():
                    pass
                for piece in answer:
                    connection.sendall(piece)

    def start(raw, piece=b"", times=0):
        answer.extend([raw, *[piece] * times])
        thread.start()
        elsewhere(f"http://127.0.0.1:{listener.getsockname()[1]}")

    thread = threading.Thread(target=serve)
    yield start
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


BROKEN = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 30000\r\n\r\n' + b"line\n" * 4000


@pytest.mark.parametrize(
    ("wrap", "use"),
    [
        (lambda body: body, lambda body: body.read()),
        (lambda body: body, lambda body: [body.read(7) for _ in range(30000)]),
        (lambda body: body, lambda body: body.read(2 * BUFFER_BYTES)),
        (lambda body: body, list),
        (lambda body: body, lambda body: body.readinto(bytearray(30000))),
        (io.TextIOWrapper, list),
    ],
    ids=["whole", "pieces", "large pieces", "lines", "readinto", "text"],
)
def test_a_broken_connection_raises(scripted, wrap, use):
    """A stream that loses its connection raises, however it is read, and does so again when read on."""
    scripted(BROKEN)
    body = wrap(S3Object(bucket=BUCKET, key="broken").open())
    for _ in range(2):
        with pytest.raises(BotoCoreError):
            use(body)


def test_the_stream_takes_constant_memory(scripted):
    """Reading 64 MiB by line takes a few MiB of memory."""
    pieces = 64 * 1024
    scripted(
        b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: %d\r\n\r\n' % (pieces * 1024), bytes(1023) + b"\n", pieces
    )
    obj = S3Object(bucket=BUCKET, key="large")
    tracemalloc.start()
    try:
        with obj.open() as body:
            before_bytes, _ = tracemalloc.get_traced_memory()
            assert sum(1 for _ in body) == pieces
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes - before_bytes < 8 * 1024 * 1024


def test_a_broken_download_leaves_nothing(scripted, tmp_path):
    """A download that loses its connection raises and leaves the old file and no part of the new one."""
    scripted(BROKEN)
    (tmp_path / "x").write_bytes(b"before")
    with pytest.raises(BotoCoreError):
        S3Object(bucket=BUCKET, key="broken", size=30000).download(tmp_path / "x")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_a_delete_marker_of_aws_is_gone(scripted):
    """AWS answers GetObject of a delete marker's version with 405 MethodNotAllowed (moto says 404)."""
    xml = b"<Error><Code>MethodNotAllowed</Code><Message>no</Message><Method>GET</Method></Error>"
    scripted(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: %d\r\n\r\n%s" % (len(xml), xml))
    with pytest.raises(ObjectGone, match=r"s3://b/k \(version v\) no longer exists: S3 answered MethodNotAllowed"):
        S3Object(bucket="b", key="k", version_id="v").open()
