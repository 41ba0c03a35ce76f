"""Who may come into Flower, judged from its options before it listens.

Flower compares the header of a request with the entries of ``basic_auth`` as they are, an empty one with an empty name
and password (https://flower.readthedocs.io/en/latest/auth.html): whatever is not a whole ``user:password`` opens it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


def open_to_network(address: str, unix_socket: str) -> bool:
    """Say whether others than this machine could reach a Flower bound like this; an empty address means all."""
    if unix_socket or address == "localhost":
        return False
    try:
        return not ipaddress.ip_address(address).is_loopback
    except ValueError:
        return True


def access_fault(
    address: str, unix_socket: str, basic_auth: Sequence[str | None], auth: str, auth_provider: str | None
) -> str | None:
    """Return one line that says why Flower must not start with these of its options, None when it may.

    An option that protects nothing is a fault on every address, because its user relies on it. No password is in the
    line, nor any part of an entry: where one has no colon, its user is its password.
    """
    for number, entry in enumerate(basic_auth, 1):
        if fault := _entry_fault(entry):
            return (
                f"Flower's basic_auth (--basic-auth, FLOWER_BASIC_AUTH): entry {number} of {len(basic_auth)} {fault}; "
                "it takes user:password, neither of them empty, and a comma between two entries"
            )
    if auth and not all(part.strip() for part in auth.split("|")):
        return "Flower's auth (--auth, FLOWER_AUTH) holds an empty address: name who may come in"
    if auth_provider and not auth:
        # Flower looks at who a provider names only when it knows who may come in.
        return (
            "Flower's auth_provider (--auth-provider, FLOWER_AUTH_PROVIDER) protects nothing without auth (--auth, "
            "FLOWER_AUTH) is empty: say there who may come in"
        )
    if open_to_network(address, unix_socket) and not (basic_auth or auth):
        return (
            f"Flower would be open to everybody on {address or 'all addresses'}, tasks and remote control: "
            "give it --basic-auth=user:password or --auth with an --auth-provider, or leave it on 127.0.0.1"
        )
    return None


def _entry_fault(entry: str | None) -> str | None:
    """Return what is wrong with one entry of ``basic_auth``, without a word of it."""
    if not entry or not entry.strip():
        return "is empty"
    user, colon, password = entry.partition(":")
    if not colon:
        return "has no colon"
    if not user.strip():
        return "has no user"
    if not password.strip():
        return "has no password"
    if entry != entry.strip():
        return "begins or ends with white space, which is surely a mistake"
    if not entry.isascii():
        return "is not ASCII, which Flower cannot compare"  # it answers everybody with status 500 then
    return None
