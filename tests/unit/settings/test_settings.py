"""The settings, loaded from environments: what is taken, what is refused, and in which words."""

from __future__ import annotations

import re
import socket

import pydantic
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bridge.errors import SettingsError
from bridge.settings.loading import (
    WorkerSettings,
    load_results_settings,
    load_retry_settings,
    load_task_queue_settings,
    load_worker_settings,
)
from bridge.sqs import quotas

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
OTHER = "https://sqs.eu-west-1.amazonaws.com/123456789012/other"
ENOUGH = {"SQS_QUEUE_URL": QUEUE, "BRIDGE_TASK_MODULES": "my_files", "AWS_REGION": "eu-west-1"}
FIELDS = {
    str(field.validation_alias): field for field in WorkerSettings.model_fields.values() if field.validation_alias
}


def fault(**environ: str) -> str:
    """The text with which the otherwise sound environment is refused."""
    with pytest.raises(SettingsError) as caught:
        load_worker_settings({**ENOUGH, **environ})
    return str(caught.value)


def test_defaults() -> None:
    """With the two required settings alone, a worker has every documented default."""
    loaded = load_worker_settings(ENOUGH)
    assert loaded.model_dump() == {
        "sqs_queue_urls": (QUEUE,),
        "sqs_dlq_url": None,
        "sqs_task_queue_url": None,
        "task_modules": ("my_files",),
        "unrouted": "dead-letter",
        "allowed_buckets": ("*",),
        "visibility_timeout_seconds": 120,
        "heartbeat": True,
        "wait_time_seconds": 20,
        "poll_interval_seconds": 0.0,
        "poll_mode": "after-empty",
        "max_messages_per_poll": 10,
        "max_retries": 5,
        "retry_backoff_seconds": 2,
        "retry_backoff_max_seconds": 600,
        "spare_receives": 10,
        "idempotency_url": None,
        "idempotency_ttl_seconds": 2_592_000,
        "task_time_limit_seconds": 3600.0,
        "drain_seconds": 25.0,
        "health_host": "127.0.0.1",
        "health_port": 8080,
        "monitor_url": None,
        "results_url": None,
        "archive_url": None,
        "job_template": None,
        "job_id": None,
        "pushgateway_url": None,
        "log_format": None,
        "log_level": "INFO",
        "pod_name": socket.gethostname(),
        "region": "eu-west-1",
    }


def test_values_are_taken() -> None:
    """Lists are split at commas, blanks and line ends are dropped, and numbers, words and URLs become typed values."""
    loaded = load_worker_settings(
        {
            "SQS_QUEUE_URL": f"{QUEUE} ,\n{OTHER}\n",
            "SQS_DLQ_URL": "http://localhost:9324/000000000000/dlq",
            "BRIDGE_TASK_MODULES": "my_files, tasks.describe,",
            "BRIDGE_ALLOWED_BUCKETS": "uploads-*,my.[ab]?",
            "BRIDGE_HEARTBEAT": "off",
            "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "60",
            "BRIDGE_TASK_TIME_LIMIT_SECONDS": "60",
            "BRIDGE_POLL_INTERVAL_SECONDS": "0.5",
            "BRIDGE_POLL_MODE": "paced",
            "BRIDGE_RESULTS_URL": "s3://out/a b",
            "BRIDGE_LOG_FORMAT": "json",
            "BRIDGE_LOG_LEVEL": "debug",
            "BRIDGE_POD_NAME": "pod-1",
            "AWS_REGION": "eu-west-1",
        }
    )
    assert loaded.sqs_queue_urls == (QUEUE, OTHER)
    assert loaded.sqs_dlq_url == "http://localhost:9324/000000000000/dlq"
    assert loaded.task_modules == ("my_files", "tasks.describe")
    assert loaded.allowed_buckets == ("uploads-*", "my.[ab]?")
    assert (loaded.heartbeat, loaded.poll_interval_seconds, loaded.poll_mode) == (False, 0.5, "paced")
    assert loaded.results_url == "s3://out/a b/"
    assert (loaded.log_format, loaded.log_level, loaded.pod_name) == ("json", "DEBUG", "pod-1")


def test_settings_are_frozen() -> None:
    """Loaded settings cannot be changed, so that no room sees another value than the banner said."""
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        load_worker_settings(ENOUGH).max_retries = 6  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize("blank", ["", "  \n"])
def test_empty_is_unset(blank: str) -> None:
    """An empty or blank variable counts as unset, be it required, optional or unknown."""
    loaded = load_worker_settings({**ENOUGH, "BRIDGE_WAIT_TIME_SECONDS": blank, "BRIDGE_NO_SUCH": blank})
    assert loaded.wait_time_seconds == 20
    assert fault(SQS_QUEUE_URL=blank) == "SQS_QUEUE_URL is not set: the URL of the queue that S3 notifies"


def test_all_faults_are_told_at_once() -> None:
    """Unknown names, missing settings, bad values and bad combinations come in one line, separated by semicolons."""
    with pytest.raises(SettingsError) as caught:
        load_worker_settings(
            {
                "BRIDGE_WAIT_TIME_SECONDS": "30",
                "BRIDGE_MAX_RETRYS": "3",
                "BRIDGE_RETRY_BACKOFF_SECONDS": "700",
                "BRIDGE_HEARTBEAT": "off",
                "CELERY_BROKER_URL": "redis://:secret@host/0",
                "AWS_REGION": "eu west",
            }
        )
    texts = re.split("; (?!did you mean )", str(caught.value))
    assert [re.split("[ =:;]", text.removeprefix("unknown setting "))[0] for text in texts] == [
        "BRIDGE_MAX_RETRYS",
        "CELERY_BROKER_URL",
        "AWS_REGION",
        "BRIDGE_RETRY_BACKOFF_SECONDS",
        "SQS_QUEUE_URL",
        "BRIDGE_TASK_MODULES",
        "BRIDGE_HEARTBEAT",
        "BRIDGE_WAIT_TIME_SECONDS",
    ]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("BRIDGE_WAIT_TIME_SECONDS", "30", "must be between 0 and 20"),
        ("BRIDGE_WAIT_TIME_SECONDS", "soon", "must be a whole number between 0 and 20"),
        ("BRIDGE_MAX_RETRIES", "1.5", "must be a whole number between 0 and 1000"),
        ("BRIDGE_DRAIN_SECONDS", "nan", "must be a number between 0 and 7200"),
        ("BRIDGE_UNROUTED", "drop", "must be dead-letter or ignore"),
        ("BRIDGE_POLL_MODE", "PACED", "must be after-empty or paced"),
        ("BRIDGE_HEARTBEAT", "true", "must be on or off"),
        ("BRIDGE_LOG_FORMAT", "xml", "must be text or json"),
        ("BRIDGE_LOG_LEVEL", "loud", "must be DEBUG or INFO or WARNING or ERROR or CRITICAL"),
        ("BRIDGE_RESULTS_URL", "https://bucket/results/", "must be s3://bucket/prefix/"),
        ("BRIDGE_RESULTS_URL", "s3://bucket//x", "must be s3://bucket/prefix/"),
        (
            "BRIDGE_RESULTS_URL",
            "s3://bucket/",
            (
                "must be s3://bucket/prefix/: without a prefix the worker would take all objects of the bucket "
                "for its own output and ignore them"
            ),
        ),
        (
            "BRIDGE_ALLOWED_BUCKETS",
            "s3://uploads",
            "must be a bucket name or a glob for bucket names, such as uploads-*",
        ),
        ("BRIDGE_TASK_MODULES", ",", "must contain at least one value"),
        ("BRIDGE_TASK_MODULES", "a-b", "must be a module name, such as my_files or my_project.tasks"),
        ("BRIDGE_TASK_MODULES", "my_files.py", "is a file name: give the module name, without .py"),
    ],
)
def test_bad_value(name: str, value: str, rule: str) -> None:
    """A bad value is refused with its name, itself and the rule."""
    assert fault(**{name: value}) == f"{name}={value}: {rule}"


def test_retry_backoff_order() -> None:
    """A first delay above the longest is refused, also when the longest is the default."""
    expected = "BRIDGE_RETRY_BACKOFF_SECONDS=601: must not exceed BRIDGE_RETRY_BACKOFF_MAX_SECONDS=600"
    assert fault(BRIDGE_RETRY_BACKOFF_SECONDS="601") == expected


def test_fixed_mode() -> None:
    """With it off, a time limit above the visibility timeout is refused, saying what to change; an equal one is not."""
    text = fault(BRIDGE_HEARTBEAT="off")
    assert text.startswith("BRIDGE_HEARTBEAT=off: the time limit of 3600 s exceeds the visibility timeout of 120 s")
    assert "set BRIDGE_TASK_TIME_LIMIT_SECONDS (default 3600) to at most 120" in text
    assert "or BRIDGE_VISIBILITY_TIMEOUT_SECONDS (default 120) to at least 3600" in text
    equal = {"BRIDGE_HEARTBEAT": "off", "BRIDGE_VISIBILITY_TIMEOUT_SECONDS": "3600"}
    assert not load_worker_settings({**ENOUGH, **equal}).heartbeat


def test_partial_loaders_require_nothing() -> None:
    """A sender, a shipped task and a task's defaults load from an empty environment, and from a worker's."""
    nothing = {"AWS_CONFIG_FILE": "/nonexistent"}
    assert load_task_queue_settings(nothing).model_dump() == {"sqs_task_queue_url": None, "region": None}
    assert load_results_settings(nothing).model_dump() == {"results_url": None, "region": None}
    retry = load_retry_settings({})
    assert tuple(retry.model_dump().values()) == (5, 2, 600, 3600)
    full = {**ENOUGH, "SQS_TASK_QUEUE_URL": OTHER, "BRIDGE_RESULTS_URL": "s3://out/x/", "BRIDGE_MAX_RETRIES": "7"}
    assert load_task_queue_settings(full).sqs_task_queue_url == OTHER
    assert load_results_settings(full).results_url == "s3://out/x/"
    assert load_retry_settings(full).max_retries == 7


def test_partial_loaders_check_their_own_only() -> None:
    """A bad value that a command does not use does not stop it; one of its own does; a name may be somebody else's."""
    load_retry_settings({"SQS_TASK_QUEUE_URL": "x", "BRIDGE_WAIT_TIME_SECONDS": "x"})
    with pytest.raises(SettingsError, match=r"^SQS_TASK_QUEUE_URL=x: must be the URL of a queue"):
        load_task_queue_settings({**ENOUGH, "SQS_TASK_QUEUE_URL": "x"})
    assert load_task_queue_settings({**ENOUGH, "SQS_EMAIL_QUEUE": OTHER}).sqs_task_queue_url is None


def test_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left alone, a loader reads the process's environment; given a mapping, only that."""
    for name in [name for name in FIELDS if name not in ENOUGH]:
        monkeypatch.delenv(name, raising=False)
    for name, value in ENOUGH.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BRIDGE_MAX_RETRIES", "9")
    assert (load_worker_settings().max_retries, load_worker_settings().region) == (9, "eu-west-1")
    assert load_worker_settings(ENOUGH).max_retries == 5


def test_the_name_of_a_field_is_no_variable() -> None:
    """Only the documented names fill a setting, not the attribute names of the code."""
    loaded = load_worker_settings({**ENOUGH, "max_retries": "9", "region": "nowhere", "bridge_max_retries": "9"})
    assert (loaded.max_retries, loaded.region) == (5, "eu-west-1")


PLAUSIBLE = ["0", "5", "-1", "1e3", "on", "off", "paced", QUEUE, OTHER, f"{QUEUE},", "http://h/q", "http://[/q", "a,b"]
NAMES = [*FIELDS, "CELERY_BROKER_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "SQS_TEST_ENDPOINT"]


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.booleans(),
    st.dictionaries(
        st.sampled_from(NAMES),
        # Lone surrogates too: that is how Python shows bytes of the environment that are not UTF-8.
        st.one_of(st.sampled_from(PLAUSIBLE), st.text(st.characters(exclude_characters="\0"))),
        max_size=8,
    ),
)
def test_any_values(sound_base: bool, environ: dict[str, str]) -> None:
    """Whatever the values of known names are, loading gives settings or one line of fault, and nothing else."""
    base = ENOUGH if sound_base else {"AWS_CONFIG_FILE": "/nonexistent"}
    try:
        loaded = load_worker_settings({**base, **environ})
    except SettingsError as error:
        assert len(str(error).splitlines()) == 1
        assert str(error).encode("utf-8")
    else:
        assert loaded.region and loaded.sqs_queue_urls and loaded.task_modules


@pytest.mark.parametrize(
    ("field", "quota"),
    [
        ("visibility_timeout_seconds", quotas.MAX_VISIBILITY_SECONDS),
        ("retry_backoff_seconds", quotas.MAX_VISIBILITY_SECONDS),
        ("retry_backoff_max_seconds", quotas.MAX_VISIBILITY_SECONDS),
        ("max_messages_per_poll", quotas.MAX_BATCH_ENTRIES),
    ],
)
def test_bounds_are_the_quotas_of_sqs(field, quota):
    """The settings stand below the wing sqs and name its limits themselves; both say the same."""
    bounds = [bound.le for bound in WorkerSettings.model_fields[field].metadata if hasattr(bound, "le")]

    assert bounds == [quota]
