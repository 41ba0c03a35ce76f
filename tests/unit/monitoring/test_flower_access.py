"""Flower's own options are judged before it listens: what is given as a password must be one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.monitoring.flower_access import access_fault, open_to_network

CLOSED, OPEN = "127.0.0.1", "0.0.0.0"  # noqa: S104 - no port is bound here
#: What stands for a user or a password: ASCII without comma, colon or white space.
words = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=",:"), min_size=1)
pairs = st.builds("{}:{}".format, words, words)
# Of capitals alone, so that a part of one is not in the refusal by chance.
secrets = st.text("QXZJK", min_size=4, max_size=12)
broken = st.one_of(
    st.sampled_from(["", " ", "\n", ":", " : "]),
    secrets,
    secrets.map(":{}".format),
    secrets.map("{}:".format),
    secrets.map("{}: ".format),
    secrets.map(" {}:x".format),
    secrets.map("me:{}\n".format),
    secrets.map("me:{}é".format),
)


@given(address=st.one_of(st.ip_addresses().map(str), st.text(max_size=20)))
def test_only_loopback_is_closed(address: str) -> None:
    """No address counts as closed but this machine's own; what is no address counts as open."""
    closed = address == "localhost" or address == "::1" or address.startswith("127.")
    if not open_to_network(address, ""):
        assert closed
    assert not open_to_network(address, "/run/flower.sock")


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_is_closed(address: str) -> None:
    """This machine's own addresses need no password."""
    assert not open_to_network(address, "")


@given(st.lists(pairs, min_size=1), st.sampled_from([CLOSED, OPEN, ""]))
def test_user_and_password_are_enough(entries: list[str], address: str) -> None:
    """With whole entries alone Flower may start on every address."""
    assert access_fault(address, "", entries, "", None) is None


@given(st.lists(pairs), broken, st.lists(pairs), st.sampled_from([CLOSED, OPEN]))
def test_one_broken_entry_is_refused(before: list[str], entry: str, after: list[str], address: str) -> None:
    """One entry that is no password closes Flower, also on 127.0.0.1; the line names its place and nothing of it."""
    fault = access_fault(address, "", [*before, entry, *after], "", None)
    assert fault is not None
    assert "basic_auth" in fault
    assert f"entry {len(before) + 1} of {len(before) + 1 + len(after)} " in fault
    assert not any(len(part) >= 4 and part in fault for part in entry.strip().split(":"))
    assert len(fault.splitlines()) == 1


def test_an_entry_of_a_settings_file_may_be_none() -> None:
    """Tornado lets None pass for a string in a list; Flower would fail at each request."""
    assert "is empty" in str(access_fault(CLOSED, "", [None], "", None))


@pytest.mark.parametrize(("auth", "provider"), [("", "x"), (" ", "x"), (" ", None), ("me@example.com|", "x")])
@pytest.mark.parametrize("address", [CLOSED, OPEN])
def test_a_provider_is_told_who_may_come_in(auth: str, provider: str | None, address: str) -> None:
    """An auth provider without auth asks nobody, and an empty address is no name: refused on every address."""
    assert "(--auth, FLOWER_AUTH)" in str(access_fault(address, "", [], auth, provider))
    assert access_fault(address, "", [], "me@example.com", "x") is None


def test_nothing_given() -> None:
    """Without any of it Flower may start on this machine's own address, and on no other."""
    assert access_fault(CLOSED, "", [], "", None) is None
    assert access_fault("", "/run/flower.sock", [], "", None) is None
    assert "open to everybody on all addresses" in str(access_fault("", "", [], "", None))
