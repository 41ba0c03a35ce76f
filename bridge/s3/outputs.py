"""Our own output prefixes, each with the setting that names it. Pure.

An event for an object under one of them is ignored by the worker; a notification that covers one still costs an event,
a message and a delete for everything that we write.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Output:
    """Objects of ``bucket`` whose keys start with ``prefix`` are ours, says ``setting``."""

    setting: str
    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.prefix}"


def output_prefixes(
    *, results_url: str | None, archive_url: str | None, idempotency_url: str | None
) -> tuple[Output, ...]:
    """Return the outputs that the settings name; a store in DynamoDB is none."""
    named = {
        "BRIDGE_RESULTS_URL": results_url,
        "BRIDGE_ARCHIVE_URL": archive_url,
        "BRIDGE_IDEMPOTENCY_URL": idempotency_url,
    }
    found = []
    for setting, url in named.items():
        if url is not None and url.startswith("s3://"):
            bucket, _, prefix = url.removeprefix("s3://").partition("/")
            # A key of ours is always behind a slash: "claims" must not stand for "claims-of-2026/…" too.
            found.append(Output(setting, bucket, prefix if prefix.endswith("/") or not prefix else f"{prefix}/"))
    return tuple(found)


def pairs(outputs: tuple[Output, ...]) -> tuple[tuple[str, str], ...]:
    """Return them as (bucket, prefix), the form that routing asks for."""
    return tuple((output.bucket, output.prefix) for output in outputs)
