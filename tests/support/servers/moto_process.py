"""moto's HTTP server as a process: ``python -m tests.support.servers.moto_process`` serves S3 and SQS on a free port.

Not inside pytest: its work would share one interpreter lock with the tests, and the warnings of its libraries would be
errors in ours.
"""

from __future__ import annotations

import logging
import threading

from moto.server import ThreadedMotoServer

from bridge.local.moto_locks import serialize_requests


def main() -> None:
    """Serve until killed."""
    serialize_requests()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    print(f"serving at http://{host}:{port}", flush=True)  # noqa: T201 - the tests read the address from here
    threading.Event().wait()


if __name__ == "__main__":
    main()
