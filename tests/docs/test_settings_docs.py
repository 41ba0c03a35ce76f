"""docs/reference/settings.md says what the code does: names, defaults and ranges."""

from __future__ import annotations

import re

import pytest

from bridge.errors import SettingsError
from bridge.settings.loading import WorkerSettings, load_worker_settings
from tests import REPOSITORY

ENOUGH = {"SQS_QUEUE_URL": "http://localhost:9324/0/q", "BRIDGE_TASK_MODULES": "my_files", "AWS_REGION": "eu-west-1"}
DOCS = (REPOSITORY / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")


def documented() -> dict[str, tuple[str, str]]:
    """Default and meaning of every setting in the tables of docs/reference/settings.md."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) \| (.*?) \|$", DOCS, flags=re.MULTILINE)
    assert len(rows) == len({row[0] for row in rows})
    return {name: (default, meaning) for name, default, meaning in rows}


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("BRIDGE_VISIBILITY_TIMEOUT_SECONDS", 6, 43_200),
        ("BRIDGE_WAIT_TIME_SECONDS", 0, 20),
        ("BRIDGE_POLL_INTERVAL_SECONDS", 0, 300),
        ("BRIDGE_MAX_MESSAGES_PER_POLL", 1, 10),
        ("BRIDGE_MAX_RETRIES", 0, 1000),
        ("BRIDGE_RETRY_BACKOFF_MAX_SECONDS", 1, 43_200),
        ("BRIDGE_RETRY_BACKOFF_SECONDS", 1, 43_200),
        ("BRIDGE_SPARE_RECEIVES", 0, 1000),
        ("BRIDGE_IDEMPOTENCY_TTL_SECONDS", 86_400, 315_360_000),
        ("BRIDGE_TASK_TIME_LIMIT_SECONDS", 1, 42_000),
        ("BRIDGE_DRAIN_SECONDS", 0, 7200),
        ("BRIDGE_HEALTH_PORT", 0, 65_535),
    ],
)
def test_range(name: str, low: int, high: int) -> None:
    """Both ends of a range are allowed, one step beyond either is refused, and the docs name the same ends."""
    wide = {**ENOUGH, "BRIDGE_RETRY_BACKOFF_SECONDS": "1", "BRIDGE_RETRY_BACKOFF_MAX_SECONDS": "43200"}
    for value in (low, high):
        load_worker_settings({**wide, name: str(value)})
    for value in (low - 1, high + 1):
        with pytest.raises(SettingsError, match=f"^{name}={value}: must be between {low} and {high}$"):
            load_worker_settings({**wide, name: str(value)})
    assert f"{low}–{high}" in documented()[name][1]


def test_docs_name_every_setting_and_default() -> None:
    """The tables of docs/reference/settings.md hold exactly the settings of the code, with their defaults."""
    in_words = {
        "SQS_DLQ_URL": "each queue's RedrivePolicy",
        "BRIDGE_LOG_FORMAT": "`text` on a terminal, else `json`",
        "BRIDGE_POD_NAME": "host name",
        "BRIDGE_HEARTBEAT": "`on`",
        "BRIDGE_ALLOWED_BUCKETS": "`*`",
    }
    expected = {}
    for field in WorkerSettings.model_fields.values():
        if field.validation_alias is None:
            continue
        name = str(field.validation_alias)
        plain = "required" if field.is_required() else "none" if field.default is None else f"`{field.default}`"
        expected[name] = in_words.get(name, plain)
    assert {name: default for name, (default, _) in documented().items()} == expected


def test_docs_show_the_real_message() -> None:
    """The example of a refused start in the docs is what such a start says."""
    with pytest.raises(SettingsError) as caught:
        load_worker_settings({"BRIDGE_WAIT_TIME_SECONDS": "30", "BRIDGE_TIME_LIMIT": "60", "AWS_REGION": "eu-west-1"})
    assert f"\n{caught.value}\n" in DOCS
