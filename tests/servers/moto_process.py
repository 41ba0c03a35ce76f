"""moto's HTTP server as a process: ``python -m tests.servers.moto_process`` serves S3 and SQS on a free port.

Not inside pytest: its work would share one interpreter lock with the tests, and the warnings of its libraries would be
errors in ours.
"""

from __future__ import annotations

import functools
import inspect
import logging
import threading
from collections.abc import Callable
from typing import Any

from moto.server import ThreadedMotoServer
from moto.sqs.models import Queue, SQSBackend


def take_turns() -> None:
    """Let SQS calls change moto's queues one at a time, as no version of moto does by itself.

    Each request runs in a thread of its own, and between "is it visible" and "it is received now" nothing keeps a
    second receive from taking the same message; a delete puts a new list in place of the one to which a send is just
    appending. Seen with four receivers and two senders (moto 5.2.5): messages received twice. A test of "exactly once"
    or "never lost" would fail now and then, and the bridge would be blamed.

    All queues get one condition instead of one each. A long poll waits on it, and so gives up its turn altogether.
    """
    turn = threading.Condition(threading.RLock())

    def one_at_a_time(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def in_turn(*args: Any, **kwargs: Any) -> Any:
            with turn:
                return function(*args, **kwargs)

        return in_turn

    created = Queue.__init__

    def with_the_shared_condition(queue: Queue, *args: Any, **kwargs: Any) -> None:
        created(queue, *args, **kwargs)
        queue._messages_lock = turn

    Queue.__init__ = with_the_shared_condition  # type: ignore[assignment, method-assign]  # patching is the point
    for name, function in inspect.getmembers(SQSBackend, inspect.isfunction):
        if not name.startswith("_"):
            setattr(SQSBackend, name, one_at_a_time(function))


def main() -> None:
    """Serve until killed."""
    take_turns()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"serving at http://{host}:{port}", flush=True)  # noqa: T201 - the tests read the address from here
    threading.Event().wait()


if __name__ == "__main__":
    main()
