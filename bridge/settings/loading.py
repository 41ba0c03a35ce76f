"""Load the settings from the environment when a worker or command starts, and report all errors together.

Importing this module reads no setting, so a task can be imported, tested and called without any. Each ``load_…``
function requires only the settings that its command needs. bridge/settings/model.py declares the settings.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import ValidationError
from pydantic_settings import EnvSettingsSource

from bridge.errors import SettingsError
from bridge.settings import legacy_names, rules
from bridge.settings.model import (
    ArchiveSettings,
    HealthSettings,
    JobSettings,
    MonitorSettings,
    OperatorSettings,
    QueueSettings,
    RegionalSettings,
    ResultsSettings,
    RetrySettings,
    RoutingSettings,
    Settings,
    TaskQueueSettings,
    WorkerSettings,
)
from bridge.settings.region import EMULATOR_REGION, is_aws_host, is_region_name, region_for
from bridge.settings.rules import Faults
from bridge.text import shown

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

__all__ = [
    "ArchiveSettings",
    "HealthSettings",
    "JobSettings",
    "MonitorSettings",
    "OperatorSettings",
    "QueueSettings",
    "ResultsSettings",
    "RetrySettings",
    "RoutingSettings",
    "TaskQueueSettings",
    "WorkerSettings",
    "legacy_names_in_use",
    "load_archive_settings",
    "load_health_settings",
    "load_job_settings",
    "load_monitor_settings",
    "load_operator_settings",
    "load_queue_settings",
    "load_results_settings",
    "load_retry_settings",
    "load_routing_settings",
    "load_task_queue_settings",
    "load_worker_settings",
    "region_for",
]

_S = TypeVar("_S", bound=Settings)


def load_worker_settings(environ: Mapping[str, str] | None = None) -> WorkerSettings:
    """Load all settings from ``environ`` (default: the process's environment).

    Raises SettingsError, whose text is one line with every error, separated by "; ".
    """
    return _load(WorkerSettings, environ, "SQS_QUEUE_URL")


def load_task_queue_settings(environ: Mapping[str, str] | None = None) -> TaskQueueSettings:
    """Load the settings of a process that only sends Celery messages, such as a web server. Requires none.

    Raises SettingsError like load_worker_settings.
    """
    return _load(TaskQueueSettings, environ, "SQS_TASK_QUEUE_URL")


def load_health_settings(environ: Mapping[str, str] | None = None) -> HealthSettings:
    """Load the worker's health address. Requires no setting. Raises SettingsError like load_worker_settings."""
    return _load(HealthSettings, environ, None)


def load_monitor_settings(environ: Mapping[str, str] | None = None) -> MonitorSettings:
    """Load the settings of a process that monitors or controls workers. Requires none.

    Raises SettingsError like load_worker_settings.
    """
    return _load(MonitorSettings, environ, None)


def load_operator_settings(
    environ: Mapping[str, str] | None = None, region_from: str = "SQS_QUEUE_URL"
) -> OperatorSettings:
    """Load all settings for an operator's command. Requires none; each command checks what it needs.

    ``region_from`` is the name of the setting whose queue URL may name the region. Raises SettingsError like
    load_worker_settings.
    """
    return _load(OperatorSettings, environ, region_from)


def load_results_settings(environ: Mapping[str, str] | None = None) -> ResultsSettings:
    """Load the settings of a shipped task that writes results. Requires none.

    Raises SettingsError like load_worker_settings.
    """
    return _load(ResultsSettings, environ, "SQS_QUEUE_URL")


def load_archive_settings(environ: Mapping[str, str] | None = None) -> ArchiveSettings:
    """Load the settings of ``tasks.archive``. Requires none. Raises SettingsError like load_worker_settings."""
    return _load(ArchiveSettings, environ, "SQS_QUEUE_URL")


def load_job_settings(environ: Mapping[str, str] | None = None) -> JobSettings:
    """Load the settings of ``tasks.launch_job``. Requires none. Raises SettingsError like load_worker_settings."""
    return _load(JobSettings, environ, "SQS_QUEUE_URL")


def legacy_names_in_use(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return each setting of the predecessor of ``tasks.archive`` that is in use, with the setting it stands for."""
    return legacy_names.in_use(rules.in_force(os.environ if environ is None else environ))


def load_retry_settings(environ: Mapping[str, str] | None = None) -> RetrySettings:
    """Load the retry defaults for tasks. Requires no setting. Raises SettingsError like load_worker_settings."""
    return _load(RetrySettings, environ, None)


def load_queue_settings(environ: Mapping[str, str] | None = None) -> QueueSettings:
    """Load the settings of a command that reads queues or sends to them. Requires none.

    Raises SettingsError like load_worker_settings.
    """
    given = rules.in_force(os.environ if environ is None else environ)
    named = (name for name in ("SQS_QUEUE_URL", "SQS_TASK_QUEUE_URL", "SQS_DLQ_URL") if name in given)
    return _load(QueueSettings, given, next(named, "SQS_QUEUE_URL"))


def load_routing_settings(environ: Mapping[str, str] | None = None) -> RoutingSettings:
    """Load the settings of a command that shows which task takes a message.

    Raises SettingsError like load_worker_settings.
    """
    return _load(RoutingSettings, environ, "SQS_QUEUE_URL")


def _load(cls: type[_S], environ: Mapping[str, str] | None, queue_name: str | None) -> _S:
    """Load ``cls`` from the environment; ``queue_name`` is the setting whose queue URL may name the region."""
    given, old_names = legacy_names.translate(rules.in_force(os.environ if environ is None else environ))
    # In a process that only sends, such as a user's web server, SQS_… variables may belong to other software, and a
    # broker URL does not change the transport that the app names itself. A worker or a command runs nothing else.
    bridge_process = issubclass(cls, (QueueSettings, RoutingSettings))
    faults = rules.unknown_names(given, _names(WorkerSettings)) if bridge_process else []
    if issubclass(cls, WorkerSettings):
        faults += rules.redirects(given)
    source = EnvSettingsSource(cls)
    # The source has just read the process's environment, but only the given environment counts. Only the variables of
    # settings are passed on: a variable called "max_retries" must not fill the field of that name.
    source.env_vars = {name: given[name] for name in _names(cls) if name in given}
    values: dict[str, Any] = source()
    if queue_name is not None and issubclass(cls, RegionalSettings):
        try:
            values["region"] = _region(given, queue_name)
        except Faults as error:
            faults += error.texts
    try:
        settings = cls(**values)
    except ValidationError as error:
        faults += [text for details in error.errors() for text in _fault_texts(details, cls, given, old_names)]
    if faults:
        raise SettingsError("; ".join(faults))
    return settings


def _names(cls: type[Settings]) -> list[str]:
    """Return the names of the variables that fill ``cls``, in the order of its fields."""
    return [field.validation_alias for field in cls.model_fields.values() if isinstance(field.validation_alias, str)]


def _region(given: Mapping[str, str], queue_name: str) -> str | None:
    """Return the region for the clients, or None when no valid queue URL needs one. Raises Faults."""
    url: str | None = given.get(queue_name, "").split(",")[0].strip()
    if not url or rules.queue_url_fault(url, queue_name) is not None:
        url = None
    in_environment = "AWS_REGION" in given or "AWS_DEFAULT_REGION" in given
    region = region_for(url, given, None if in_environment else _profile_region(given))
    if region is not None and not is_region_name(region):
        name = next((n for n in ("AWS_REGION", "AWS_DEFAULT_REGION") if n in given), "region in the AWS profile")
        raise Faults([f"{name}={shown(region)}: is not a region name, such as eu-west-1"])
    if region is None and url is not None:
        if is_aws_host(url):
            raise Faults([f"AWS_REGION is not set and {queue_name}={shown(url)} names no region: set AWS_REGION"])
        return EMULATOR_REGION
    return region


def _profile_region(given: Mapping[str, str]) -> str | None:
    """Return the region of the AWS profile that ``given`` names, else of the default profile.

    Raises Faults when the AWS configuration cannot be read.
    """
    # Imported here because it takes a third of a second, and most containers name their region in the environment.
    import botocore.session
    from botocore.exceptions import BotoCoreError

    profile = given.get("AWS_DEFAULT_PROFILE") or given.get("AWS_PROFILE")
    # No environment variable is named here, so botocore takes each value from ``given`` and not from the process.
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, profile, None),
            "config_file": (None, None, given.get("AWS_CONFIG_FILE", "~/.aws/config"), None),
            "credentials_file": (None, None, given.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"), None),
        },
        include_builtin_handlers=False,
    )
    try:
        region = session.get_scoped_config().get("region")
    except BotoCoreError as error:
        raise Faults([f"the AWS configuration cannot be read: {shown(str(error))}"]) from error
    return region if isinstance(region, str) and region else None


def _fault_texts(
    error: ErrorDetails, cls: type[Settings], given: Mapping[str, str], old_names: Mapping[str, tuple[str, ...]]
) -> Sequence[str]:
    """Return one pydantic error as one or more complete texts for a user.

    ``old_names`` holds the old names from which a setting was filled, so that the text can name the variable that is
    really set.
    """
    key = error["loc"][0]
    name, field = next((f.validation_alias, f) for n, f in cls.model_fields.items() if key in (n, f.validation_alias))
    if error["type"] == "missing":
        return [f"{name} is not set: {field.description}"]
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, Faults):
        return cause.texts
    rule = str(cause) if isinstance(cause, ValueError) else _rule(field, error)
    origin = " and ".join(old_names.get(str(name), ()))
    return [f"{name}={shown(given.get(str(name), ''))}{f' (from {origin})' if origin else ''}: {rule}"]


def _rule(field: FieldInfo, error: ErrorDetails) -> str:
    """Return the rule that a value broke, from the field's declaration: pydantic names only the bound it violated."""
    types = (field.annotation, *get_args(field.annotation))
    choices = [choice for type_ in types for choice in get_args(type_) if isinstance(choice, str)]
    if choices:
        return f"must be {' or '.join(choices)}"
    low = next((bound.ge for bound in field.metadata if hasattr(bound, "ge")), None)
    high = next((bound.le for bound in field.metadata if hasattr(bound, "le")), None)
    if low is None or high is None:
        return shown(error["msg"])
    crossed = error["type"] in ("greater_than_equal", "less_than_equal")
    kind = "" if crossed else "a whole number " if field.annotation is int else "a number "
    return f"must be {kind}between {low} and {high}"
