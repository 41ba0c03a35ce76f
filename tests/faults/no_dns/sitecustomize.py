"""Imported by every interpreter whose path leads here: names do not resolve while the file NO_DNS_FLAG is there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

_getaddrinfo = socket.getaddrinfo


def _or_not(*args: Any, **kwargs: Any) -> Any:
    if Path(os.environ["NO_DNS_FLAG"]).exists():
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _getaddrinfo(*args, **kwargs)


socket.getaddrinfo = _or_not
