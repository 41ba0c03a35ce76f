"""Ties a worker and all its children to the life of the process that started it.

Run as a script: ``python -I die_with_parent.py COMMAND…``, as leader of its own process group, with a pipe as standard
input that only the starter holds open. The kernel closes that pipe when the starter is gone, however it went, so this
needs neither a signal handler over there nor Linux's PR_SET_PDEATHSIG, which would not reach the worker's own children.

- SIGTERM is passed on to the worker alone: its pool children must not get it, or they would die in the middle of a
  task.
- End of standard input kills the whole group at once, this process included.
- When the worker ends, so does this process, with the worker's exit code (128 + n for signal n).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def hold(command: list[str]) -> int:
    """Run ``command`` and return its exit code; never return when standard input ends first."""
    if os.getpgrp() != os.getpid():
        # killpg below would otherwise take the starter's group with it: the user's shell pipeline.
        raise SystemExit("die_with_parent: must be started as the leader of its own process group")
    worker = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    signal.signal(signal.SIGTERM, lambda *_: worker.send_signal(signal.SIGTERM))
    threading.Thread(target=_kill_group_at_end_of_input, daemon=True).start()
    code = worker.wait()
    return code if code >= 0 else 128 - code


def _kill_group_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(hold(sys.argv[1:]))
