"""Imported by every interpreter whose path leads here: names do not resolve while the file NO_DNS_FLAG is there."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pycurl

_getaddrinfo = socket.getaddrinfo


def _or_not(*args: Any, **kwargs: Any) -> Any:
    if Path(os.environ["NO_DNS_FLAG"]).exists():
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return _getaddrinfo(*args, **kwargs)


socket.getaddrinfo = _or_not


class _Curl(pycurl.Curl):
    def perform_rb(self) -> bytes:
        if Path(os.environ["NO_DNS_FLAG"]).exists():
            raise pycurl.error(pycurl.E_COULDNT_RESOLVE_HOST, "Could not resolve host: 127.0.0.1")
        return bytes(super().perform_rb())


pycurl.Curl = _Curl
