"""The X-Ray trace header: what is read of a real one, and that nothing else is ever taken for one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.task.tracing import MAX_HEADER_CHARACTERS, TraceParent, parse_trace_header

ROOT, PARENT = "1-5759e988-bd862e3fe1be46a994272793", "53995c3f42cd8ad8"
TRACE_ID, SPAN_ID = 0x5759E988BD862E3FE1BE46A994272793, 0x53995C3F42CD8AD8
IDS = st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1)


def header(trace_id, span_id):
    """The fields of both ids as AWS writes them."""
    text = f"{trace_id:032x}"
    return f"Root=1-{text[:8]}-{text[8:]}", f"Parent={span_id:016x}"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"Root={ROOT};Parent={PARENT};Sampled=1", True),
        (f"Root={ROOT};Parent={PARENT};Sampled=0", False),
        (f"Root={ROOT};Parent={PARENT};Sampled=?", True),
        (f"Root={ROOT};Parent={PARENT}", True),
        (f"Root={ROOT}; Parent={PARENT}; Sampled=1;", True),
        (f"Self=1-67891234-12456789abcdef012345678;Root={ROOT};Parent={PARENT};Lineage=25:4f8d2a1b:0", True),
        (f"Root={ROOT.upper()};Parent={PARENT.upper()};Sampled=1", True),
    ],
)
def test_headers_of_aws(text, sampled):
    """Every form that AWS documents is read; without a decision on sampling the trace is wanted."""
    assert parse_trace_header(text) == TraceParent(TRACE_ID, SPAN_ID, sampled)


@pytest.mark.parametrize(
    "text",
    [
        None,
        5,
        "",
        ";;=;",
        f"Root={ROOT}",
        f"Parent={PARENT}",
        f"Root={ROOT};Parent={PARENT[1:]}",
        f"Root=2{ROOT[1:]};Parent={PARENT}",
        f"Root={ROOT}0;Parent={PARENT}",
        f"Root={ROOT};Parent=+{PARENT[1:]}",
        f"Root={ROOT[:-2]}_1;Parent={PARENT}",
        f"Root=1-{'0' * 8}-{'0' * 24};Parent={PARENT}",
        f"Root={ROOT};Parent={'0' * 16}",
        f"Root={ROOT};Parent=\uff11{PARENT[1:]}",
        f"Root={ROOT};Parent={PARENT}" + ";" * MAX_HEADER_CHARACTERS,
    ],
)
def test_what_is_no_header(text):
    """Anything else continues no trace, and raises nothing: the header is the sender's to choose."""
    assert parse_trace_header(text) is None


@given(*IDS, st.sampled_from(["0", "1", "?", None]), st.permutations(range(3)))
def test_every_pair_of_ids_comes_back(trace_id, span_id, sampled, order):
    """Whatever the ids, the order of the fields and the decision on sampling, the ids are those that were written."""
    fields = [*header(trace_id, span_id), "Self=x" if sampled is None else f"Sampled={sampled}"]
    assert parse_trace_header(";".join(fields[n] for n in order)) == TraceParent(trace_id, span_id, sampled != "0")


@given(st.text(alphabet="Root=Parent;Sampled-0123456789abcdef_+ ", max_size=120) | st.text() | st.none() | st.binary())
def test_no_header_raises(text):
    """No text, however close to a header, raises; what is read has ids that W3C allows."""
    found = parse_trace_header(text)
    assert found is None or (0 < found.trace_id < 2**128 and 0 < found.span_id < 2**64)


@given(*IDS, st.integers(0, 60), st.characters(exclude_characters="0123456789abcdefABCDEF"))
def test_a_spoilt_id_is_no_id(trace_id, span_id, place, wrong):
    """One character that is no hex digit, anywhere in the ids, and the header is not read, or not as another trace."""
    text = ";".join(header(trace_id, span_id))
    place = min(place, len(text) - 1)
    spoilt = text[:place] + wrong + text[place + 1 :]
    assert parse_trace_header(spoilt) in (None, parse_trace_header(text))
