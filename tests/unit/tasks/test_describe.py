"""The pure work of tasks.describe: what is in a stream, the manifest and the key under which it lies."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import subprocess
import sys
import tracemalloc
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from bridge import S3Object
from bridge.errors import SettingsError
from bridge.s3.types import ObjectHead
from tasks import describe
from tasks.describe import describe_stream, manifest, manifest_key, media_type_of


def described(content, key="", **options):
    """The description of some bytes."""
    return describe_stream(io.BytesIO(content), key, **options)


def is_text(content):
    """Whether bytes are text, said in the plainest way."""
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


@given(st.binary(max_size=40) | st.text(alphabet="a\nü€😀\0\r", max_size=40).map(str.encode), st.integers(1, 9))
@example("€😀".encode()[:-1], 4)  # ends in the middle of a character
@example("€".encode(), 1)
@example(b"\n", 1)
def test_size_hash_and_lines_do_not_depend_on_the_chunks(content, chunk_bytes):
    """However a stream is cut, hash, size, media type and the line count of text are those of the whole."""
    text = is_text(content)
    assert described(content, chunk_bytes=chunk_bytes) == {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "media_type": media_type_of(content, "", is_text=text),
        "lines": len(io.BytesIO(content).readlines()) if text else None,
    }


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", 0),
        (b"a", 1),
        (b"a\n", 1),
        (b"a\nb", 2),
        (b"\n\n", 2),
        (b"a\r\nb\r\n", 2),
        (b"a\0\n", None),
        (b"\xff\n", None),
    ],
)
def test_lines(content, lines):
    """A last line needs no line end, nothing has no lines, and what is no text has no line count."""
    assert described(content)["lines"] == lines


def zip_bytes():
    """A real zip file."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"\xff")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "key", "media_type"),
    [
        (b"a,b\n", "in/a.CSV", "text/csv"),
        (b"a,b\n", "in.csv/a", "text/plain"),
        (b"\xe4,b\n", "latin-1.csv", "text/csv"),
        (b"{}", "a.json", "application/json"),
        (b"", "empty.csv", "text/csv"),
        (b"", "empty", "text/plain"),
        (b"\0\1", "no-suffix", "application/octet-stream"),
        (b"\x89PNG\r\n\x1a\n\0\xff", "a.csv", "image/png"),
        (b"no picture", "a.png", "text/plain"),
        (b"\0no picture", "a.png", "application/octet-stream"),
        (b"%PDF-1.7 all in ASCII", "a.txt", "application/pdf"),
        (b"BZh is how this text begins", "a", "text/plain"),
        (b"RIFF\xff\xff\xff\xffWEBPVP8 ", "a", "image/webp"),
        (zip_bytes(), "a.zip", "application/zip"),
        (zip_bytes(), "a", "application/zip"),
        (zip_bytes(), "a.csv", "application/zip"),
        (zip_bytes(), "a.xlsx", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
        (b"\0no archive", "a.xlsx", "application/octet-stream"),
        (b"\x1f\x8b\x08\0", "a.csv.gz", "application/gzip"),
        (b"\x1f\x8b\x08\0", "a.csv", "application/gzip"),
    ],
)
def test_media_type(content, key, media_type):
    """The content's signature counts before the name, and a name whose signature is missing does not count."""
    assert described(content, key)["media_type"] == media_type


def test_a_signature_may_come_in_pieces():
    """Chunks shorter than a signature hide nothing."""
    assert described(b"\x89PNG\r\n\x1a\n\0\xff", chunk_bytes=1)["media_type"] == "image/png"


def test_the_machine_has_no_say_in_the_media_type(tmp_path):
    """A suffix that only the machine's mime.types knows stays unknown: two workers must write one manifest."""
    (tmp_path / "mime.types").write_text("application/x-local zzz\n")
    code = """
import mimetypes, sys
mimetypes.init([sys.argv[1]])
from tasks.describe import media_type_of
print(mimetypes.guess_type("a.zzz")[0], media_type_of(b"", "a.zzz", is_text=True))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "mime.types")]
    root = Path(describe.__file__).parent.parent
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("application/x-local text/plain\n", "")


class Endless(io.RawIOBase):
    """A stream of ``size`` bytes of text that exists nowhere as a whole."""

    def __init__(self, size):
        self.left = size

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.left)
        buffer[:count] = b"\n" * count
        self.left -= count
        return count


def test_constant_memory():
    """Describing 64 MiB takes a few MiB of memory."""
    tracemalloc.start()
    try:
        result = describe_stream(io.BufferedReader(Endless(64 * 1024 * 1024)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert result["lines"] == 64 * 1024 * 1024
    assert peak_bytes < 8 * 1024 * 1024


class InPieces(io.BytesIO):
    """A stream whose reads return what it has at hand: now more than a thread is asked to hash, now less."""

    def read(self, size=-1):
        return super().read(next(self.sizes) if size != 0 else 0)


def test_large_and_small_chunks_go_into_the_hash_in_their_order():
    """What a thread hashes beside the reading and what is hashed at once make the hash of the whole."""
    content = bytes(range(256)) * 40_000
    stream = InPieces(content)
    stream.sizes = itertools.cycle([describe.HASHED_BESIDE_BYTES, 10, describe.HASHED_BESIDE_BYTES * 3, 1, 99_999])
    assert describe_stream(stream)["sha256"] == hashlib.sha256(content).hexdigest()


HEAD = ObjectHead(
    size=4,
    etag="e1",
    content_type="text/csv",
    metadata={"b": "2", "a": "ü"},
    last_modified=datetime(2026, 7, 1, 14, 30, tzinfo=timezone(timedelta(hours=2))),
    version_id=None,
    storage_class="STANDARD",
)
OBJECT = S3Object(
    bucket="b",
    key="ü.csv",
    etag="e1",
    size=4,
    sequencer="00A1",
    event_name="ObjectCreated:Copy",
    event_time="2026-07-01T12:30:01.000Z",
)


def test_the_manifest():
    """The manifest has the description, S3's metadata and the event, sorted, in UTF-8, with a line end."""
    body = manifest(OBJECT, HEAD, described(b"a,b\n", OBJECT.key))
    content = json.loads(body)
    assert content == {
        "manifest_version": 1,
        "sha256": hashlib.sha256(b"a,b\n").hexdigest(),
        "size": 4,
        "media_type": "text/csv",
        "lines": 1,
        "object": {
            "bucket": "b",
            "key": "ü.csv",
            "version_id": None,
            "etag": "e1",
            "content_type": "text/csv",
            "metadata": {"a": "ü", "b": "2"},
            "last_modified": "2026-07-01T12:30:00Z",
        },
        "event": {
            "bucket": "b",
            "key": "ü.csv",
            "etag": "e1",
            "size": 4,
            "sequencer": "00A1",
            "event_name": "ObjectCreated:Copy",
            "event_time": "2026-07-01T12:30:01.000Z",
        },
    }
    assert body == (json.dumps(content, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()


def test_a_repeat_writes_the_same_bytes():
    """What may differ between two reads of one object version, order, time zone, storage class, is not seen."""
    later = ObjectHead(
        **{
            **HEAD,
            "metadata": dict(reversed(HEAD["metadata"].items())),
            "last_modified": HEAD["last_modified"].astimezone(UTC),
            "storage_class": "GLACIER",
        }
    )
    description = described(b"a,b\n", OBJECT.key)
    assert manifest(OBJECT, later, description) == manifest(OBJECT, HEAD, description)


@pytest.mark.parametrize(
    ("version_id", "etag", "key"),
    [
        (None, "e-2", "out/b/dir/ü @.csv@etag-e-2.json"),
        ("null", "e-2", "out/b/dir/ü @.csv@etag-e-2.json"),
        ("v.1_x", "e-2", "out/b/dir/ü @.csv@version-v.1_x.json"),
        ("a/b@c", "e-2", "out/b/dir/ü @.csv@version-a%2Fb%40c.json"),
    ],
)
def test_the_key_can_be_read(version_id, etag, key):
    """The key of a manifest shows bucket, key and version, or eTag where the version says nothing."""
    assert manifest_key("out/", "b", "dir/ü @.csv", version_id=version_id, etag=etag) == key


# Few letters, and those that could be mistaken for the parts of a manifest's key; long keys reach the hashed form.
parts = st.text(alphabet="ab@%/.-ü", max_size=6)
identities = st.tuples(
    st.text(alphabet="ab.-", min_size=1, max_size=3),
    st.builds(lambda text, times, more: text * times + more, parts, st.sampled_from([1, 400]), parts),
    st.none() | st.just("null") | st.builds(str.__add__, parts, st.sampled_from(["", ".json", "@etag-a", "é" * 400])),
    parts,
)


def key_of(identity, prefix="out/"):
    """The manifest's key of a (bucket, key, version id, eTag)."""
    bucket, key, version_id, etag = identity
    return manifest_key(prefix, bucket, key, version_id=version_id, etag=etag)


def same_object(one, other):
    """Whether two identities are of one object: its version decides, or the eTag where there is none."""

    def names(identity):
        bucket, key, version_id, etag = identity
        return (bucket, key, "etag", etag) if version_id in (None, "", "null") else (bucket, key, "version", version_id)

    return names(one) == names(other)


@given(identities, identities)
def test_no_two_objects_share_a_manifest(one, other):
    """Different objects have different keys: at most 1,024 bytes, under the prefix, their bucket in front."""
    assert (key_of(one) == key_of(other)) == same_object(one, other)
    for identity in (one, other):
        assert len(key_of(identity).encode()) <= 1024
        assert key_of(identity).startswith(f"out/{identity[0]}/")


@given(identities, parts, parts)
def test_a_key_that_looks_like_a_manifests(identity, etag, more):
    """An object named like the manifest of another does not get that manifest."""
    bucket, _, _, _ = identity
    twin = key_of(identity).removeprefix(f"out/{bucket}/")
    for key in (twin, twin.removesuffix(".json"), twin.rpartition("@")[0], twin + more):
        other = (bucket, key, None, etag)
        assume(not same_object(identity, other))
        assert key_of(other) != key_of(identity)


def test_all_short_objects_have_their_own_manifest():
    """Of all objects with up to three of the awkward letters, no two share a key."""
    texts = ["".join(letters) for length in range(4) for letters in itertools.product("@/.", repeat=length)]
    objects = [("b", key, version, etag) for key in texts for version, etag in ((None, "a"), ("a", "a"), ("@a", "a"))]
    assert len(set(map(key_of, objects))) == len(objects)


def test_a_long_key_keeps_its_beginning():
    """A key that gets too long is cut between characters, and a hash tells it from others with that beginning."""
    keys = [key_of(("b", "ü" * 511 + end, None, "e")) for end in ("x", "y")]
    assert keys[0] != keys[1]
    for key in keys:
        assert key.startswith("out/b/" + "ü" * 400)
        assert 1023 <= len(key.encode()) <= 1024
        assert key.rpartition("@")[2].startswith("sha256-")


def test_a_prefix_that_leaves_no_room():
    """A prefix with which no manifest fits into a key is a wrong setting, and is named."""
    with pytest.raises(SettingsError, match="BRIDGE_RESULTS_URL"):
        key_of(("b" * 63, "key", None, "e"), prefix="p" * 960 + "/")
