"""The settings of the SQS-to-S3 processor, a service that came before ``tasks.archive``, read as ours. Pure.

They count only where ``BRIDGE_TASK_MODULES`` names ``tasks.archive``: ``S3_BUCKET_NAME`` is a name that any program may
use for a purpose of its own, and there it must not make a prefix of that bucket our output.
"""

from __future__ import annotations

from collections.abc import Mapping

ARCHIVE_MODULE = "tasks.archive"
#: What that service wrote under when ``S3_PREFIX`` was not set.
OLD_PREFIX = "sqs-messages/"


def translate(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return ``given`` with our names filled in from old ones, and each name so filled with the old ones behind it.

    ``given`` holds variables in force: stripped, without empty ones. A name of ours that is set is left as it is.
    """
    filled: dict[str, str] = {}
    behind: dict[str, tuple[str, ...]] = {}
    modules = [name.strip() for name in given.get("BRIDGE_TASK_MODULES", "").split(",")]
    if ARCHIVE_MODULE not in modules:
        return dict(given), {}

    def fill(ours: str, value: str, *old: str) -> None:
        if ours not in given:
            filled[ours] = value
            behind[ours] = tuple(name for name in old if name in given)

    if "POLL_INTERVAL_SECONDS" in given:
        fill("BRIDGE_POLL_INTERVAL_SECONDS", given["POLL_INTERVAL_SECONDS"], "POLL_INTERVAL_SECONDS")
        # That service slept after every poll; ours, left alone, only after one that brought nothing.
        fill("BRIDGE_POLL_MODE", "paced", "POLL_INTERVAL_SECONDS")
    if "MAX_MESSAGES_PER_POLL" in given:
        fill("BRIDGE_MAX_MESSAGES_PER_POLL", given["MAX_MESSAGES_PER_POLL"], "MAX_MESSAGES_PER_POLL")
    if "S3_BUCKET_NAME" in given:
        url = f"s3://{given['S3_BUCKET_NAME']}/{given.get('S3_PREFIX', OLD_PREFIX)}"
        fill("BRIDGE_ARCHIVE_URL", url, "S3_BUCKET_NAME", "S3_PREFIX")
    return {**given, **filled}, behind


def in_use(given: Mapping[str, str]) -> dict[str, str]:
    """Return each old name that is in use with what it stands for, such as ``BRIDGE_MAX_MESSAGES_PER_POLL=10``."""
    translated, behind = translate(given)
    found: dict[str, list[str]] = {}
    for ours, old_names in behind.items():
        for old in old_names:
            found.setdefault(old, []).append(f"{ours}={translated[ours]}")
    return {old: " and ".join(ours) for old, ours in found.items()}
