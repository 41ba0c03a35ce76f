"""The output prefixes of the bridge itself, each with the setting that names it. Pure.

The worker ignores an event for an object under one of them. A notification that covers such a prefix still costs an
event, a message and a delete for every object that the bridge writes.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Output:
    """The setting ``setting`` makes objects of ``bucket`` under ``prefix`` the bridge's own output."""

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
    """Return the outputs that the settings name; an idempotency store in DynamoDB is not one."""
    named = {
        "BRIDGE_RESULTS_URL": results_url,
        "BRIDGE_ARCHIVE_URL": archive_url,
        "BRIDGE_IDEMPOTENCY_URL": idempotency_url,
    }
    found = []
    for setting, url in named.items():
        if url is not None and url.startswith("s3://"):
            bucket, _, prefix = url.removeprefix("s3://").partition("/")
            # The bridge's keys always have a slash after the prefix: "claims" must not match "claims-of-2026/…" too.
            found.append(Output(setting, bucket, prefix if prefix.endswith("/") or not prefix else f"{prefix}/"))
    return tuple(found)


def pairs(outputs: tuple[Output, ...]) -> tuple[tuple[str, str], ...]:
    """Return the outputs as (bucket, prefix), the form that routing takes."""
    return tuple((output.bucket, output.prefix) for output in outputs)
