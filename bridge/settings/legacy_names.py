"""The settings of the SQS-to-S3 processor, the predecessor of ``tasks.archive``, translated to bridge settings. Pure.

They count only where ``BRIDGE_TASK_MODULES`` names ``tasks.archive``. Any program may use a variable such as
``S3_BUCKET_NAME`` for its own purpose; there it must not turn a prefix of that bucket into the bridge's own output.
"""

from __future__ import annotations

from collections.abc import Mapping

ARCHIVE_MODULE = "tasks.archive"
#: The prefix under which that service wrote when ``S3_PREFIX`` was not set.
OLD_PREFIX = "sqs-messages/"


def translate(given: Mapping[str, str]) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Return ``given`` with bridge settings added from old names, and for each added setting the old names used.

    ``given`` holds the variables in force: stripped, without empty ones. A bridge setting that is set is kept as it is.
    """
    filled: dict[str, str] = {}
    old_names: dict[str, tuple[str, ...]] = {}
    modules = [name.strip() for name in given.get("BRIDGE_TASK_MODULES", "").split(",")]
    if ARCHIVE_MODULE not in modules:
        return dict(given), {}

    def fill(setting: str, value: str, *old: str) -> None:
        if setting not in given:
            filled[setting] = value
            old_names[setting] = tuple(name for name in old if name in given)

    if "POLL_INTERVAL_SECONDS" in given:
        fill("BRIDGE_POLL_INTERVAL_SECONDS", given["POLL_INTERVAL_SECONDS"], "POLL_INTERVAL_SECONDS")
        # That service slept after every poll. The bridge's default is to sleep only after an empty poll.
        fill("BRIDGE_POLL_MODE", "paced", "POLL_INTERVAL_SECONDS")
    if "MAX_MESSAGES_PER_POLL" in given:
        fill("BRIDGE_MAX_MESSAGES_PER_POLL", given["MAX_MESSAGES_PER_POLL"], "MAX_MESSAGES_PER_POLL")
    if "S3_BUCKET_NAME" in given:
        url = f"s3://{given['S3_BUCKET_NAME']}/{given.get('S3_PREFIX', OLD_PREFIX)}"
        fill("BRIDGE_ARCHIVE_URL", url, "S3_BUCKET_NAME", "S3_PREFIX")
    return {**given, **filled}, old_names


def in_use(given: Mapping[str, str]) -> dict[str, str]:
    """Return each old name in use with the setting it stands for, such as ``BRIDGE_MAX_MESSAGES_PER_POLL=10``."""
    translated, old_names = translate(given)
    found: dict[str, list[str]] = {}
    for setting, names in old_names.items():
        for old in names:
            found.setdefault(old, []).append(f"{setting}={translated[setting]}")
    return {old: " and ".join(settings) for old, settings in found.items()}
