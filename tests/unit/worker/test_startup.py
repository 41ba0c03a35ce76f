"""A worker's start, piece by piece: the tasks' defaults, the imports, our outputs, and what is refused in one line."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from celery import Task
from hypothesis import given
from hypothesis import strategies as st

from bridge.celery import app
from bridge.errors import SettingsError
from bridge.messages.retry_policy import TaskLimits
from bridge.settings.loading import load_worker_settings
from bridge.sqs import queue_lookup as queues_module
from bridge.sqs.queue_lookup import check_endpoint, find_queues
from bridge.sqs.queues import Queue
from bridge.task import registry
from bridge.task.decorators import file_task
from bridge.task.defaults import apply_defaults
from bridge.task.registry import import_tasks
from bridge.worker import startup
from bridge.worker.startup import check_options, own_outputs, refuse, start_up

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
ENVIRONMENT = {"SQS_QUEUE_URL": URL, "BRIDGE_TASK_MODULES": "my_files", "AWS_REGION": "eu-west-1"}
NAME = "test_startup.task"


@pytest.fixture(autouse=True)
def _forget_tasks():
    """Only the tasks of a test are declared in it, and none after it."""
    declared, known = dict(registry._declared), set(app.tasks)
    registry._declared.clear()
    yield
    registry._declared.clear()
    registry._declared.update(declared)
    for name in set(app.tasks) - known:
        del app.tasks[name]


@pytest.fixture
def task_modules(tmp_path, monkeypatch):
    """Writes modules into the directory where the worker was started, and forgets them after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    known = set(sys.modules)
    yield lambda name, text: (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    for name in set(sys.modules) - known:
        del sys.modules[name]


def settings(**changed):
    """A worker's settings."""
    return load_worker_settings(ENVIRONMENT | changed)


def declared(**options):
    """A task for these options, as the worker finds it."""

    @file_task("startup/*", name=NAME, **options)
    def task(obj):
        return None

    return task


def limits_of(task, time_limit=None, soft_time_limit=None, **changed):
    """Apply the defaults to one task, and return what the intake is told of it."""
    return apply_defaults({task.name: task}, settings(**changed), time_limit, soft_time_limit)[task.name]


def test_a_task_left_alone_gets_the_workers_numbers():
    """Retries, backoff, time limits and lease are those of the settings."""
    task = declared()
    limits = limits_of(
        task,
        BRIDGE_MAX_RETRIES="7",
        BRIDGE_RETRY_BACKOFF_SECONDS="3",
        BRIDGE_RETRY_BACKOFF_MAX_SECONDS="90",
        BRIDGE_TASK_TIME_LIMIT_SECONDS="1000",
        BRIDGE_VISIBILITY_TIMEOUT_SECONDS="60",
    )
    assert limits == TaskLimits(7, 1000.0, 60)
    assert (task.max_retries, task.backoff_seconds, task.backoff_max_seconds) == (7, 3, 90)
    assert (task.time_limit, task.soft_time_limit) == (1000, 990)


def test_what_a_task_says_stays():
    """No setting overrules it."""
    task = declared(max_retries=1, time_limit=100, soft_time_limit=50, visibility_timeout=30, retry_backoff=9)
    assert limits_of(task, BRIDGE_MAX_RETRIES="7") == TaskLimits(1, 100.0, 30)
    assert (task.max_retries, task.time_limit, task.soft_time_limit) == (1, 100, 50)


def test_no_limit_stays_no_limit():
    """max_retries=None is said, not left alone."""
    assert limits_of(declared(max_retries=None)).max_retries is None


@pytest.mark.parametrize(
    ("options", "worker", "expected"),
    [
        ({}, (None, None), (3600, 3590)),
        ({}, (50, None), (50, 45)),
        ({}, (50, 20), (50, 20)),
        ({}, (None, 20), (3600, 20)),
        ({"time_limit": 100}, (50, 20), (100, 90)),
        ({"time_limit": 1000}, (None, None), (1000, 990)),
        ({"soft_time_limit": 5}, (50, 20), (50, 5)),
        ({"time_limit": 100, "soft_time_limit": 70}, (50, 20), (100, 70)),
    ],
)
def test_time_limits_come_from_the_task_then_the_command_line_then_the_settings(options, worker, expected):
    """The soft limit is ten seconds, and at most a tenth, before the hard one, unless somebody says it."""
    task = declared(**options)
    limits_of(task, *worker)
    assert (task.time_limit, task.soft_time_limit) == expected


@given(hard=st.integers(1, 42_000))
def test_the_soft_limit_is_always_before_the_hard_one(hard):
    """By ten seconds at most, and never by more than a tenth."""
    task = SimpleNamespace(
        acks_late=True,
        Request="bridge.worker.request:Request",
        unset_options=frozenset(),
        max_retries=1,
        time_limit=hard,
        soft_time_limit=None,
        visibility_timeout=None,
        idempotent=None,
        latest_only=False,
    )
    apply_defaults({"t": task}, settings(), None, None)
    assert 0 < hard - task.soft_time_limit <= min(10, hard / 10) + 1e-9


def test_late_acknowledgement_is_checked_again():
    """A base class, or a task that was not declared by us, may have switched it off."""
    task = declared()
    task.acks_late = False
    with pytest.raises(SettingsError, match=f"task {NAME}: acks_late=False would delete a message before"):
        limits_of(task)


def test_a_foreign_base_class_is_refused():
    """Its requests would be acknowledged by Celery's rules, which delete failed messages."""

    def function():
        return None

    task = app.task(base=Task, name=NAME, lazy=False)(function)
    with pytest.raises(SettingsError, match=f"task {NAME}: its base class must be bridge.task.base.BridgeTask"):
        limits_of(task)


def test_celerys_own_tasks_pass():
    """Every task of the app is one the worker starts with."""
    # With a store, because tasks that other tests have imported may ask for one.
    limits = apply_defaults(app.tasks, settings(BRIDGE_IDEMPOTENCY_URL="s3://bucket/claims"), None, None)
    assert limits.keys() == app.tasks.keys()


def test_without_a_heartbeat_a_task_must_fit_its_lease():
    """The limit counts from wherever it comes, and the text names the task."""
    changed = {"BRIDGE_HEARTBEAT": "off", "BRIDGE_TASK_TIME_LIMIT_SECONDS": "100"}
    assert limits_of(declared(), **changed) == TaskLimits(5, 100.0, 120)
    del app.tasks[NAME]
    with pytest.raises(SettingsError, match=f"BRIDGE_HEARTBEAT=off: task {NAME} may run 130 s, longer than its lease"):
        limits_of(declared(time_limit=130), **changed)
    del app.tasks[NAME]
    with pytest.raises(SettingsError, match="may run 200 s"):
        limits_of(declared(), 200, **changed)


def test_without_a_heartbeat_nothing_lengthens_a_lease():
    """The receive asks for the configured length and only renewals could change it, so a task's own does not count."""
    changed = {"BRIDGE_HEARTBEAT": "off", "BRIDGE_TASK_TIME_LIMIT_SECONDS": "100"}
    with pytest.raises(SettingsError, match="BRIDGE_HEARTBEAT=off"):
        limits_of(declared(time_limit=1000, visibility_timeout=2000), **changed)


def test_our_outputs_are_bucket_and_prefix():
    """The prefix ends with a slash, so that its neighbours are not meant."""
    assert own_outputs(settings()) == ()
    for url in ("s3://results/some/prefix", "s3://results/some/prefix/"):
        assert own_outputs(settings(BRIDGE_RESULTS_URL=url)) == (("results", "some/prefix/"),)


def test_task_modules_are_found_where_the_worker_was_started(task_modules):
    """As ``celery -A`` finds them; importing declares their tasks."""
    task_modules("startup_one", "from bridge import file_task\n@file_task('x')\ndef one(obj): ...\n")
    import_tasks(("startup_one",))
    assert "startup_one.one" in app.tasks
    assert "startup_one.one" in registry._declared


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("startup_absent", None, "BRIDGE_TASK_MODULES=startup_absent: there is no module startup_absent"),
        ("startup_absent.sub", None, "BRIDGE_TASK_MODULES=startup_absent.sub: there is no module startup_absent"),
        ("startup_needs", "x = 1\nimport not_there\n", "No module named 'not_there' (startup_needs.py:2)"),
        ("startup_name", "from bridge import nothing\n", "cannot be imported: ImportError"),
        ("startup_raises", "\n\nraise RuntimeError('two\\nlines')\n", "RuntimeError: two lines (startup_raises.py:3)"),
        ("startup_syntax", "x = 1\ndef f(:\n", "startup_syntax.py, line 2"),
        (
            "startup_early",
            "from bridge import file_task\n@file_task('x', acks_late=False)\ndef f(obj): ...\n",
            "acks_late=False would delete a message",
        ),
        ("startup_inner.sub", "x = 1\n", "there is no module startup_inner"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_line(task_modules, name, text, said):
    """It says which module, what is wrong, and where."""
    if text is not None:
        task_modules(name, text)
    with pytest.raises(SettingsError) as caught:
        import_tasks((name,))
    assert said in str(caught.value)
    assert f"BRIDGE_TASK_MODULES={name}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["raise SystemExit(0)\n", "import sys\nsys.exit('bye')\n"])
def test_a_module_that_exits_is_one_line_too(task_modules, text):
    """A script among the task modules must not end the worker with success and without a word."""
    task_modules("startup_exits", text)
    with pytest.raises(SettingsError, match="BRIDGE_TASK_MODULES=startup_exits"):
        import_tasks(("startup_exits",))


def test_refusing_is_one_line_and_exit_code_2(capsys):
    """On standard error, without a traceback."""
    with pytest.raises(SystemExit) as caught:
        refuse("SQS_QUEUE_URL is not set")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "bridge: SQS_QUEUE_URL is not set\n"


@pytest.mark.parametrize(
    ("environment", "broker_url", "said"),
    [
        ({}, "sqs://", "SQS_QUEUE_URL is not set"),
        (ENVIRONMENT, "redis://localhost", "broker_url is set in the configuration"),
        (ENVIRONMENT | {"BRIDGE_MAX_RETRYS": "3"}, "sqs://", "BRIDGE_MAX_RETRYS"),
        (ENVIRONMENT | {"BRIDGE_TASK_MODULES": "startup_absent"}, "sqs://", "there is no module startup_absent"),
    ],
)
def test_a_start_with_a_mistake_ends_with_code_2(monkeypatch, capsys, environment, broker_url, said):
    """One line names what is to be mended."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(startup, "set_up_logs", lambda _: None)  # the loggers of this process are pytest's
    with pytest.raises(SystemExit) as caught:
        start_up(None, SimpleNamespace(broker_url=broker_url), {})
    [line] = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert line.startswith("bridge: ")
    assert said in line


class Sqs:
    """A client of the queue's own region whose every call raises the same."""

    meta = SimpleNamespace(endpoint_url="https://sqs.eu-west-1.amazonaws.com", region_name="eu-west-1")

    def __init__(self, error):
        self.error = error

    def get_queue_attributes(self, **_):
        raise self.error


def refusal(code):
    """SQS's refusal of a call."""
    return ClientError({"Error": {"Code": code, "Message": "…"}}, "GetQueueAttributes")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NoCredentialsError(), "AWS credentials: Unable to locate credentials"),
        (refusal("InvalidClientTokenId"), "AWS refuses the credentials"),
        (refusal("UnrecognizedClientException"), "AWS refuses the credentials"),
        (refusal("AccessDenied"), "access to .* is denied"),
        (refusal("AWS.SimpleQueueService.NonExistentQueue"), "there is no queue"),
    ],
)
def test_what_no_waiting_mends_is_refused(monkeypatch, error, said):
    """Credentials, permissions and queues that are not there."""
    monkeypatch.setattr(queues_module, "sqs_client", lambda *_, **__: Sqs(error))
    with pytest.raises(SettingsError, match=said):
        find_queues(settings(), None)


@pytest.mark.parametrize(
    "error", [EndpointConnectionError(endpoint_url="x"), refusal("RequestThrottled"), refusal("ServiceUnavailable")]
)
def test_an_sqs_that_cannot_be_reached_is_waited_for(monkeypatch, error):
    """The worker starts with what it knows; the dead-letter queue is looked up before it receives."""
    monkeypatch.setattr(queues_module, "sqs_client", lambda *_, **__: Sqs(error))
    assert find_queues(settings(), None) == (Queue("uploads", URL, "event"),)


@pytest.mark.parametrize(
    ("endpoint", "queue_url", "said"),
    [
        ("https://sqs.eu-west-1.amazonaws.com", URL, None),
        ("http://localhost:5000", "http://localhost:5000/123456789012/uploads", None),
        ("http://localhost:5000", URL, None),
        ("https://sqs.eu-west-1.amazonaws.com", "http://localhost:5000/1/uploads", "set AWS_ENDPOINT_URL_SQS"),
        ("https://sqs.eu-west-1.amazonaws.com", URL.replace("eu-west", "us-east"), "is in us-east-1.*set AWS_REGION"),
    ],
)
def test_an_endpoint_that_does_not_hold_the_queue_is_refused(endpoint, queue_url, said):
    """boto3 would ask it all the same, and SQS would say that there is no queue."""
    client = SimpleNamespace(meta=SimpleNamespace(endpoint_url=endpoint, region_name="eu-west-1"))
    if said is None:
        check_endpoint(client, queue_url)
        return
    with pytest.raises(SettingsError, match=said):
        check_endpoint(client, queue_url)


def test_the_client_gets_the_region(monkeypatch):
    """The one of the settings, which may come from the queue's URL."""
    asked = []

    def client(purpose, region, session):
        asked.append((purpose, region))
        return Sqs(refusal("RequestThrottled"))

    monkeypatch.setattr(queues_module, "sqs_client", client)
    find_queues(settings(AWS_REGION=""), None)
    assert asked == [("settle", "eu-west-1")]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"purge": True}, "--purge would delete every waiting event"),
        ({"queues": ["nope"]}, "-Q nope: there is no such queue, only uploads"),
        ({"queues": "uploads,nope"}, "-Q nope"),
        ({"exclude_queues": ["nope"]}, "-X nope"),
    ],
)
def test_options_that_do_harm_or_name_no_queue_are_refused(options, said):
    """One line, before anything is received."""
    with pytest.raises(SettingsError, match=said):
        check_options(options, ["uploads"])


def test_options_that_name_a_queue_are_taken():
    """-Q and -X choose among the queues, as Celery's documentation says."""
    check_options({"queues": ["uploads"], "exclude_queues": "tasks", "purge": False}, ["uploads", "tasks"])
