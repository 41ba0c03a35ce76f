"""A port for a program that cannot choose one itself."""

from __future__ import annotations

import random
import socket

LOWEST, HIGHEST = 20_000, 32_000
"""Below what Linux (from 32,768) and macOS (from 49,152) give to outgoing connections.

A port that the kernel chose for ``bind(0)`` is one of those: while the program that is to listen there starts, any
connection of another process may take it. Seen as ``the port is taken`` once in thousands of starts.
"""


def free_port() -> int:
    """Return a port of 127.0.0.1 that is free now and that no outgoing connection will take."""
    chance = random.SystemRandom()  # the seeded generator would give every process of a run the same ports
    while True:
        port = chance.randrange(LOWEST, HIGHEST)
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
