"""A server in a process of its own, which never outlives the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bridge.local import die_with_parent
from tests.support.servers.waiting import wait_until

START_SECONDS = 60
"""Far more than either server needs (1 s and 3 s), for a machine that is busy with other things."""


@contextmanager
def running_server(
    command: Sequence[str], announcement: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run ``command`` until the end of the block; yields what the regex ``announcement`` has in its group.

    Both servers choose a free port themselves and print it: a port picked beforehand could be taken in between. The
    server is killed when the block ends, and by die_with_parent when this process is gone, however it went. It has a
    session of its own, since Ctrl-C in the terminal would otherwise end it before the tests have cleaned up.

    Raises RuntimeError with the output so far when the server ends early, AssertionError when it announces nothing.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", str(die_with_parent.__file__), *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=None if environment is None else dict(environment),
            start_new_session=True,
        )

    def announced() -> re.Match[str] | None:
        # Asked for before the output is read: what a process printed before it ended is in the file by then.
        ended = process.poll() is not None
        printed = log.read_text(encoding="utf-8", errors="replace")
        found = re.search(announcement, printed)
        if ended and not found:
            raise RuntimeError(f"{command[0]} ended with exit code {process.returncode}:\n{printed}")
        return found

    try:
        found = wait_until(announced, START_SECONDS, f"{announcement!r} in the output of {command[0]}, {log}")
        assert found is not None
        yield found[1]
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
