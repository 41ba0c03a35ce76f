"""Make foreign text (settings, keys, bodies, errors) safe to show on one line of a terminal or a log. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_LONGEST_SHOWN = 120


def printable(text: str) -> str:
    """Return ``text`` with every unprintable character escaped: terminal controls, line breaks, lone surrogates."""
    # str.isprintable is False for every character that breaks a line, including U+2028 and NEL.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(value: object) -> str:
    """Return ``str(value)`` with each run of white space replaced by one space."""
    return " ".join(str(value).split())


def shown(text: str) -> str:
    """Return ``text`` for a one-line message: printable, cut when long, a URL's user and password masked."""
    text = re.sub(r"//.*@", "//…@", text, flags=re.DOTALL)
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return printable(cut)


def without_credentials(url: str) -> str:
    """Return ``url`` without user, password and query, safe for logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
