"""Scratch directories: made on first use, one a run, and gone after it, whoever died before clearing up."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest

from bridge import scratch
from bridge.celery import app
from bridge.errors import NotEnoughDisk
from bridge.task.decorators import file_task
from bridge.task.registry import _declared
from bridge.testing import run_event, s3_event, s3_object


@pytest.fixture(autouse=True)
def base(tmp_path, monkeypatch):
    """The directory that all workers of this machine share; this process is a worker of it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(scratch._OWNER, str(os.getpid()))
    return tmp_path / "bridge-scratch"


@pytest.fixture
def declare():
    """Declares a task for in/* that lives as long as the test."""
    declared, names = dict(_declared), []

    def declare(function):
        task = file_task("in/*", name=f"test_scratch.{len(names)}", max_retries=0)(function)
        names.append(task.name)
        return task

    _declared.clear()
    yield declare
    _declared.clear()
    _declared.update(declared)
    for name in names:
        del app.tasks[name]


def files(base):
    """Everything below the shared directory that is no directory of a worker."""
    return [path for worker in base.iterdir() for path in worker.rglob("*")] if base.exists() else []


def dead_pid():
    """The process id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_outside_a_run_there_is_none(base):
    """An error says so, and nothing is made."""
    with pytest.raises(RuntimeError, match="only inside a running"):
        scratch.directory()
    assert not base.exists()


def test_a_run_has_one_directory_and_only_if_it_asks(base):
    """The same for each call in it, for the owner's eyes only; gone afterwards."""
    with scratch.run("quiet"):
        assert not base.exists()
    with scratch.run("id-1"):
        path = scratch.directory()
        assert path == scratch.directory() == base / str(os.getpid()) / "run-id-1"
        assert path.stat().st_mode & 0o777 == 0o700
        (path / "sub").mkdir()
        (path / "sub" / "file").write_bytes(b"data")
    assert files(base) == []
    with pytest.raises(RuntimeError):
        scratch.directory()


def test_a_run_that_fails_leaves_nothing(base):
    """Its error is raised as it is."""
    with pytest.raises(ZeroDivisionError), scratch.run("id-1"):
        (scratch.directory() / "file").write_bytes(b"data")
        raise ZeroDivisionError
    assert files(base) == []


def test_a_run_begins_with_an_empty_directory():
    """What a killed run of the same message left there is not found by the next one."""
    with scratch.run("id-1"):
        path = scratch.directory()
    path.mkdir()
    (path / "half").write_bytes(b"of a file")
    with scratch.run("id-1"):
        assert list(scratch.directory().iterdir()) == []


@pytest.mark.parametrize(
    "task_id", ["..", ".", "/", "/etc/passwd", "../../x", "a/b", "", "x" * 300, "ü" * 300, "new\nline", "nul\0", "-rf"]
)
def test_any_text_is_a_task_id(base, task_id):
    """The directory is a direct child of the worker's own, whatever the id says; nothing else is touched."""
    neighbour = base / str(os.getpid()) / "run-neighbour"
    neighbour.mkdir(parents=True)
    with scratch.run(task_id):
        path = scratch.directory()
        assert path.resolve().parent == neighbour.resolve().parent
        assert path != neighbour
        (path / "file").write_bytes(b"data")
    assert files(base) == [neighbour]


@pytest.mark.parametrize(("one", "other"), [("a/b", "a_b"), ("a:1", "a;1"), ("x" * 250 + "1", "x" * 250 + "2")])
def test_two_runs_never_share_a_directory(one, other):
    """Ids that differ only where a file name must not: the end of one run is not the end of the other's files."""
    with scratch.run(one):
        kept = scratch.directory() / "file"
        kept.write_bytes(b"data")
        with scratch.run(other):
            assert scratch.directory() != kept.parent
        assert kept.exists()


def test_threads_have_their_own_runs():
    """In the threads pool several tasks run in one process."""
    paths, both = {}, threading.Barrier(2, timeout=10)

    def task(name):
        with scratch.run(name):
            paths[name] = scratch.directory()
            both.wait()
            paths[name, "kept"] = paths[name].exists()
            both.wait()

    threads = [threading.Thread(target=task, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert paths["one"] != paths["two"]
    assert paths["one", "kept"]
    assert paths["two", "kept"]
    assert not paths["one"].exists()


def test_the_parent_clears_up_for_a_killed_child(base):
    """The child takes the owner from its environment, so that the parent knows where to look."""
    code = (
        "import os, signal\n"
        "from bridge import scratch\n"
        "with scratch.run('id-1'):\n"
        "    (scratch.directory() / 'file').write_bytes(b'data')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"TMPDIR": str(base.parent), "PYTHONPATH": str(Path(scratch.__file__).parents[1])}
    child = subprocess.run([sys.executable, "-c", code], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert [path.name for path in files(base)] == ["run-id-1", "file"]
    scratch.remove("id-1")
    assert files(base) == []


def test_removing_what_was_never_made_is_nothing(caplog):
    """Most tasks make no directory."""
    scratch.remove("id-1")
    assert caplog.records == []


def test_what_cannot_be_removed_is_said(caplog, monkeypatch):
    """One warning with the path: somebody has to know why the disk fills."""
    with scratch.run("id-1"):
        path = scratch.directory()
        monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    [record] = caplog.records
    assert (record.msg, record.levelno, record.path) == ("scratch_left", logging.WARNING, str(path))


def test_claim_clears_what_the_dead_left(base, monkeypatch):
    """A worker that lives keeps its files; one of our own process id is dead, for that is ours now."""
    monkeypatch.delenv(scratch._OWNER)
    living, dead, own, odd = str(os.getppid()), str(dead_pid()), str(os.getpid()), "no-number"
    for name in (living, dead, own, odd):
        (base / name / "run-1").mkdir(parents=True)
        (base / name / "run-1" / "file").write_bytes(b"data")
    scratch.claim()
    assert [path.name for path in base.iterdir()] == [living]
    assert (base / living / "run-1" / "file").exists()
    assert os.environ[scratch._OWNER] == own


def test_claim_on_a_fresh_machine(base, monkeypatch):
    """Nothing to clear, nothing made."""
    monkeypatch.delenv(scratch._OWNER)
    scratch.claim()
    assert os.environ[scratch._OWNER] == str(os.getpid())
    assert not base.exists()


@pytest.mark.parametrize("name", ["9" * 30, "²", "-1"])
def test_claim_survives_any_name(base, name):
    """A directory whose name is no process id belongs to no living worker, and must not keep one from starting."""
    (base / name).mkdir(parents=True)
    scratch.claim()
    assert list(base.iterdir()) == []


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("in/a.csv", "a.csv"),
        ("in/b c+d%20é.bin", "b c+d%20é.bin"),
        ("in/", "object"),
        ("in/..", "object"),
        ("in/.", "object"),
        ("in/" + "x" * 255, "x" * 255),
        ("in/" + "x" * 256, "object"),
        ("in/" + "é" * 200, "object"),
    ],
)
def test_a_download_without_a_path_goes_into_the_scratch_directory(base, declare, key, name):
    """Under the last part of its key where that is a file name; gone when the task has returned."""

    @declare
    def fetch(obj):
        path = obj.download()
        return (path.parent == scratch.directory(), path.name, path.read_bytes())

    assert run_event(s3_event(s3_object(b"data", key))).result == (True, name, b"data")
    assert files(base) == []


def test_a_download_without_a_path_needs_a_run(base):
    """Outside a task nobody would clear up."""
    with pytest.raises(RuntimeError, match="only inside a running"):
        s3_object(b"data", "in/k").download()


def test_a_task_called_by_another_has_a_directory_of_its_own(declare):
    """A plain call is a run too, and its end leaves the caller's files alone."""

    @declare
    def inner(obj):
        return scratch.directory()

    @declare
    def outer(obj):
        kept = obj.download()
        path = inner(obj)
        return (path != kept.parent, path.exists(), kept.exists())

    assert outer(s3_object(b"data", "in/k")) == (True, False, True)


def test_a_download_larger_than_the_disk_is_not_begun(base, declare, monkeypatch, tmp_path):
    """NotEnoughDisk says how much there is and how much it takes; it is retried, and no file is left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=3))
    obj = s3_object(b"four", "in/k")
    with pytest.raises(NotEnoughDisk, match=r"has 4 bytes, but .* has only 3 free"):
        obj.download(tmp_path / "copy")
    assert not (tmp_path / "copy").exists()

    @declare
    def fetch(obj):
        return obj.download()

    result = run_event(s3_event(obj))
    assert (result.outcome, result.reason) == ("dead_lettered", "exhausted")  # max_retries=0: an error like any other
    assert files(base) == []


def test_a_download_that_just_fits_is_begun(monkeypatch, tmp_path):
    """And one whose size nobody announced: the disk itself will say."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=4))
    assert s3_object(b"four", "in/k").download(tmp_path / "copy").read_bytes() == b"four"
    unsized = s3_object(b"more than four", f"in/{uuid4()}", size=None)
    assert unsized.download(tmp_path / "copy").read_bytes() == b"more than four"
