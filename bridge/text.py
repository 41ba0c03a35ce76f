"""Texts that others wrote (settings, keys, bodies, errors), fit for one line of a terminal or a log. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_LONGEST_SHOWN = 120


def printable(text: str) -> str:
    """Return a text in which no character controls the terminal, splits the line or has half a meaning."""
    # str.isprintable is False for every character that splits a line, also for U+2028 and NEL.
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def one_line(value: object) -> str:
    """Return the text of an error, or of anything else, with all white space as single spaces."""
    return " ".join(str(value).split())


def shown(text: str) -> str:
    """``text`` as it may stand in a one-line message: unprintable characters escaped, cut, a URL's password masked."""
    text = re.sub(r"//.*@", "//…@", text, flags=re.DOTALL)
    cut = text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"
    return printable(cut)


def without_credentials(url: str) -> str:
    """``url`` without user, password and query, fit for logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
