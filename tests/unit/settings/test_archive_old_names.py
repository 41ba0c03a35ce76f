"""The settings of the SQS-to-S3 processor, read as ours where tasks.archive runs."""

from __future__ import annotations

import pytest

from bridge.errors import SettingsError
from bridge.settings.loading import legacy_names_in_use, load_archive_settings, load_worker_settings
from bridge.worker.startup import own_outputs

ARCHIVER = {
    "SQS_QUEUE_URL": "https://sqs.us-west-1.amazonaws.com/123456789012/inbox",
    "BRIDGE_TASK_MODULES": "tasks.archive",
}
SEED = {
    "POLL_INTERVAL_SECONDS": "30",
    "MAX_MESSAGES_PER_POLL": "5",
    "S3_BUCKET_NAME": "archive-bucket",
    "S3_PREFIX": "raw-data/sqs/",
}


def test_the_seeds_settings_mean_what_they_meant() -> None:
    """The environment of that service, with our module named, is a whole and equal one of ours."""
    loaded = load_worker_settings({**ARCHIVER, **SEED})
    assert (loaded.poll_interval_seconds, loaded.poll_mode, loaded.max_messages_per_poll) == (30, "paced", 5)
    assert loaded.archive_url == "s3://archive-bucket/raw-data/sqs/"
    assert load_archive_settings({**ARCHIVER, **SEED}).archive_url == loaded.archive_url


def test_the_seeds_default_prefix() -> None:
    """A bucket without a prefix gets the prefix that the service had then."""
    loaded = load_worker_settings({**ARCHIVER, "S3_BUCKET_NAME": "archive-bucket"})
    assert loaded.archive_url == "s3://archive-bucket/sqs-messages/"


def test_each_old_name_is_told_with_ours() -> None:
    """Every old name that is in use is paired with the setting of ours that it stands for."""
    url = "BRIDGE_ARCHIVE_URL=s3://archive-bucket/raw-data/sqs/"
    assert legacy_names_in_use({**ARCHIVER, **SEED}) == {
        "POLL_INTERVAL_SECONDS": "BRIDGE_POLL_INTERVAL_SECONDS=30 and BRIDGE_POLL_MODE=paced",
        "MAX_MESSAGES_PER_POLL": "BRIDGE_MAX_MESSAGES_PER_POLL=5",
        "S3_BUCKET_NAME": url,
        "S3_PREFIX": url,
    }


def test_ours_come_first() -> None:
    """A setting of ours that is set is left alone, and the old name beside it is not in use."""
    ours = {
        "BRIDGE_POLL_INTERVAL_SECONDS": "1",
        "BRIDGE_POLL_MODE": "after-empty",
        "BRIDGE_MAX_MESSAGES_PER_POLL": "10",
        "BRIDGE_ARCHIVE_URL": "s3://ours/x/",
    }
    loaded = load_worker_settings({**ARCHIVER, **SEED, **ours})
    assert (loaded.poll_interval_seconds, loaded.poll_mode, loaded.max_messages_per_poll) == (1, "after-empty", 10)
    assert loaded.archive_url == "s3://ours/x/"
    assert legacy_names_in_use({**ARCHIVER, **SEED, **ours}) == {}


def test_elsewhere_the_old_names_are_somebody_elses() -> None:
    """Without tasks.archive a variable such as S3_BUCKET_NAME changes nothing: it is anybody's name."""
    elsewhere = {**ARCHIVER, **SEED, "BRIDGE_TASK_MODULES": "my_files,tasks.archive_of_mine"}
    loaded = load_worker_settings(elsewhere)
    assert (loaded.archive_url, loaded.poll_interval_seconds, own_outputs(loaded)) == (None, 0, ())
    assert legacy_names_in_use(elsewhere) == {}


@pytest.mark.parametrize(
    ("old", "value", "told"),
    [
        (
            "POLL_INTERVAL_SECONDS",
            "301",
            "BRIDGE_POLL_INTERVAL_SECONDS=301 (from POLL_INTERVAL_SECONDS): must be between 0 and 300",
        ),
        (
            "S3_PREFIX",
            "//x",
            "BRIDGE_ARCHIVE_URL=s3://archive-bucket///x (from S3_BUCKET_NAME and S3_PREFIX): must be s3://bucket/prefix/",
        ),
    ],
)
def test_a_fault_names_both(old: str, value: str, told: str) -> None:
    """A bad value of an old name is refused in the words of ours, and the name that is really there is told too."""
    with pytest.raises(SettingsError) as caught:
        load_worker_settings({**ARCHIVER, **SEED, old: value})
    assert str(caught.value) == told


def test_the_archive_is_our_own_output() -> None:
    """Events for objects under the archive are ignored, or an archived event would be archived for ever."""
    loaded = load_worker_settings({**ARCHIVER, "BRIDGE_ARCHIVE_URL": "s3://archive-bucket/sqs-messages"})
    assert own_outputs(loaded) == (("archive-bucket", "sqs-messages/"),)
