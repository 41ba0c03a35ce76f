"""A task's note of the moment: a line in the file that ``BENCH_MARKS`` names, read by whoever measures."""

from __future__ import annotations

import os
import time


def mark(what: str) -> None:
    """Append ``what`` and the time, in seconds since 1970 as every process of this machine counts them."""
    now = time.time()
    # O_APPEND: many processes write, and a line in one write is never mixed with another's.
    file = os.open(os.environ["BENCH_MARKS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"{what} {now:.6f}\n".encode())
    os.close(file)
