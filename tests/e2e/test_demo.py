from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.local.demo_state import GARBAGE_LABEL, DemoState
from bridge.local.sample_files import sample_files
from tests import REPOSITORY
from tests.support.servers.waiting import wait_until

pytestmark = pytest.mark.slow


def start_demo(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Start the demo as a user does, in a process group of its own, its output in a pipe."""
    return subprocess.Popen(
        [sys.executable, "-m", "bridge", "demo", *arguments],
        cwd=REPOSITORY,
        env={"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell's background job, as a CI run may be, ignores Ctrl-C and hands that on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no thread of ours runs yet
    )


def descendants(pid: int) -> set[int]:
    """All processes below one, found in /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_every_file_ends_where_it_should() -> None:
    """The demo succeeds without a terminal, whatever AWS settings are around, and its table names every file."""
    demo = start_demo(
        AWS_PROFILE="no-such-profile", SQS_QUEUE_URL="http://nowhere/q", CELERY_BROKER_URL="redis://nowhere"
    )
    output, _ = demo.communicate(timeout=110)
    assert demo.returncode == 0, output
    assert "every file ended where it should" in output
    assert "✗" not in output
    assert all(file.key in output for file in sample_files())
    assert "DLQ: exhausted after 3 runs" in output
    assert "DLQ: malformed" in output


@pytest.mark.parametrize(("how", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_no_process_is_left_behind(how: signal.Signals, exit_code: int) -> None:
    """Ctrl-C, SIGTERM and even SIGKILL of the demo alone end the worker and its pool too."""
    demo = start_demo("--keep")
    try:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "task_started" in line or ": running" in line:
                break
        below = descendants(demo.pid)
        assert len(below) >= 3  # the tether, the worker, its pool
        os.kill(demo.pid, how)
        assert demo.wait(60) == exit_code
        wait_until(lambda: not any(is_alive(pid) for pid in below), 40, "the end of all processes")
    finally:
        demo.kill()
        demo.communicate()


def test_a_worker_that_cannot_start_is_explained(tmp_path: Path) -> None:
    """The demo fails, soon, and shows what the worker said."""
    # A module of this name shadows a package that the worker needs, as a careless user's own file would.
    (tmp_path / "structlog.py").write_text("raise RuntimeError('not the real one')\n")
    demo = start_demo(PYTHONPATH=str(tmp_path))
    output, _ = demo.communicate(timeout=100)
    assert demo.returncode != 0
    assert "not the real one" in output


def test_what_the_worker_says_is_told_per_file() -> None:
    """Log lines become states; lines that are no events, and events of other files, change nothing."""
    state = DemoState(["a.txt", GARBAGE_LABEL])
    state.garbage_id = "g"
    state.on_line("no JSON")
    state.on_line("[1]")
    state.on_line('{"event": "task_started", "key": "other", "attempt": 1}')
    state.on_line('{"event": "task_started", "key": "a.txt", "attempt": 1, "task_id": "t"}')
    state.on_line('{"event": "task_retried", "key": "a.txt", "attempt": 1, "delay_seconds": 2, "error": "no"}')
    assert (state.rows["a.txt"].state, state.rows["a.txt"].error, state.all_ended()) == ("again in 2 s", "no", False)
    state.on_line('{"event": "message_settled", "key": "a.txt", "outcome": "deleted"}')
    state.on_line('{"event": "message_settled", "message_id": "g", "outcome": "dead_lettered", "reason": "malformed"}')
    assert state.all_ended()
    assert state.rows[GARBAGE_LABEL].state == "dead_lettered (malformed)"
    assert state.rows["a.txt"].runs == [("t", 1)]
    assert len(state.news()) == 4
    assert state.news() == []
