"""From an AWSTraceHeader to the ids of a trace. Pure.

SQS hands out the X-Ray trace header of whoever sent a message (an instrumented S3 client, SNS, Lambda, our own dead
letters). Its trace id is that of W3C with two dashes in it, so a trace goes on across the two worlds.
https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader
"""

from __future__ import annotations

import re
from dataclasses import dataclass

#: The header is untrusted input; a real one, with its Self, Parent and Lineage, has less than 200 characters.
MAX_HEADER_CHARACTERS = 1_000
_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})", re.ASCII)
_PARENT = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The span that a message was sent in: 128-bit trace id, 64-bit span id, and whether it is recorded."""

    trace_id: int
    span_id: int
    sampled: bool


def parse(header: object) -> TraceParent | None:
    """Return what ``header`` names, or None when it is no trace header, or names no trace or no span in it.

    A header without a decision on sampling (``Sampled=?``, or none) leaves it to us, and counts as sampled: whoever
    set up tracing wants to see it. Of a field that is there twice, the first counts.
    """
    if not isinstance(header, str) or len(header) > MAX_HEADER_CHARACTERS:
        return None
    fields: dict[str, str] = {}
    for part in header.split(";"):
        name, _, value = part.strip(" ").partition("=")
        fields.setdefault(name, value.lower())
    root, parent = _ROOT.fullmatch(fields.get("Root", "")), _PARENT.fullmatch(fields.get("Parent", ""))
    if root is None or parent is None:
        return None
    trace_id, span_id = int(root[1] + root[2], 16), int(parent[0], 16)
    if not trace_id or not span_id:
        return None  # W3C takes ids of nothing but zeros for none
    return TraceParent(trace_id, span_id, sampled=fields.get("Sampled") != "0")
