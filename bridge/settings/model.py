"""The settings as types: names, defaults, ranges and the checks across them.

docs/reference/settings.md is the same table for users, and a test compares the two. bridge/settings/loading.py fills
these classes from an environment. Constructing one reads only its arguments (and the host name, when ``pod_name`` is
unset).

A check across settings is a validator of the field that comes later. An invalid earlier field is then missing from
``info.data``, and all other errors are still reported together.
"""

from __future__ import annotations

import operator
import socket
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from bridge.settings import rules
from bridge.settings.rules import Faults
from bridge.text import shown, without_credentials


class Settings(BaseSettings):
    """Base class of all settings: frozen, and filled only from constructor arguments (field or variable names)."""

    model_config = SettingsConfigDict(
        frozen=True, case_sensitive=True, populate_by_name=True, validate_default=True, hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the constructor's arguments as the only source."""
        # The loaders pass what they read from the environment they were given; no other source may add to it.
        return (init_settings,)


class HealthSettings(Settings):
    """The address of a worker's health server; port 0 switches it off."""

    health_host: Annotated[str, BeforeValidator(rules.address)] = Field(
        "127.0.0.1", validation_alias="BRIDGE_HEALTH_HOST"
    )
    health_port: int = Field(8080, ge=0, le=65_535, validation_alias="BRIDGE_HEALTH_PORT")

    @property
    def health_url(self) -> str | None:
        """URL such as ``http://127.0.0.1:8080``, or None when the health server is off."""
        if not self.health_port:
            return None
        return f"http://{f'[{self.health_host}]' if ':' in self.health_host else self.health_host}:{self.health_port}"


class MonitorSettings(Settings):
    """The bus for Celery's events and remote control; ``monitor_url`` is None without one and may hold a password."""

    monitor_url: SecretStr | None = Field(None, validation_alias="BRIDGE_MONITOR_URL")

    @field_validator("monitor_url")
    @classmethod
    def _is_bus(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and (fault := rules.bus_url_fault(url.get_secret_value())):
            raise Faults([f"BRIDGE_MONITOR_URL: {fault}"])  # without the value: it may hold a password
        return url

    @property
    def monitor_shown(self) -> str | None:
        """The bus URL without user and password, safe for logs."""
        return None if self.monitor_url is None else without_credentials(self.monitor_url.get_secret_value())


class RegionalSettings(Settings):
    """Settings of a command that makes AWS clients; ``region`` is None when nothing names one."""

    region: str | None = None  # from AWS_REGION and the like, not from a BRIDGE_ variable: bridge/settings/region.py


class TaskQueueSettings(RegionalSettings):
    """Settings of a process that only sends Celery messages (``.delay()``)."""

    sqs_task_queue_url: str | None = Field(None, validation_alias="SQS_TASK_QUEUE_URL")

    @field_validator("sqs_task_queue_url")
    @classmethod
    def _is_queue(cls, url: str | None) -> str | None:
        return _queue_url(url, "SQS_TASK_QUEUE_URL")


class ResultsSettings(RegionalSettings):
    """Where the shipped tasks write their results; ``results_url`` ends with exactly one slash."""

    results_url: str | None = Field(None, validation_alias="BRIDGE_RESULTS_URL")

    @field_validator("results_url")
    @classmethod
    def _is_prefix(cls, url: str | None) -> str | None:
        return None if url is None else rules.results_url(url)


class IdempotencySettings(RegionalSettings):
    """The idempotency store; ``idempotency_url`` is None without one."""

    idempotency_url: str | None = Field(None, validation_alias="BRIDGE_IDEMPOTENCY_URL")
    # SQS keeps a message for at most 14 days in its queue, and for at most 14 more in the dead-letter queue.
    idempotency_ttl_seconds: int = Field(
        2_592_000, ge=86_400, le=315_360_000, validation_alias="BRIDGE_IDEMPOTENCY_TTL_SECONDS"
    )

    @field_validator("idempotency_url")
    @classmethod
    def _is_store(cls, url: str | None) -> str | None:
        return None if url is None else rules.idempotency_url(url)


class ArchiveSettings(RegionalSettings):
    """Where ``tasks.archive`` writes; ``archive_url`` ends with exactly one slash."""

    archive_url: str | None = Field(None, validation_alias="BRIDGE_ARCHIVE_URL")

    @field_validator("archive_url")
    @classmethod
    def _is_archive(cls, url: str | None) -> str | None:
        return None if url is None else rules.results_url(url)


class JobSettings(ResultsSettings):
    """Settings of ``tasks.launch_job``; ``job_template`` is the path of a manifest, or None for the shipped one."""

    job_template: Annotated[str | None, BeforeValidator(rules.printable)] = Field(
        None, validation_alias="BRIDGE_JOB_TEMPLATE"
    )


class RetrySettings(Settings):
    """The retry and time limit defaults for tasks that set none."""

    max_retries: int = Field(5, ge=0, le=1000, validation_alias="BRIDGE_MAX_RETRIES")
    retry_backoff_seconds: int = Field(2, ge=1, le=43_200, validation_alias="BRIDGE_RETRY_BACKOFF_SECONDS")
    retry_backoff_max_seconds: int = Field(600, ge=1, le=43_200, validation_alias="BRIDGE_RETRY_BACKOFF_MAX_SECONDS")
    # SQS ends every lease 43,200 s after the receive; the 1,200 s in between are left to settle the message.
    task_time_limit_seconds: float = Field(
        3600, ge=1, le=42_000, allow_inf_nan=False, validation_alias="BRIDGE_TASK_TIME_LIMIT_SECONDS"
    )

    @field_validator("retry_backoff_max_seconds")
    @classmethod
    def _not_below_backoff(cls, longest: int, info: ValidationInfo) -> int:
        first = info.data.get("retry_backoff_seconds", longest)
        if first > longest:
            text = f"BRIDGE_RETRY_BACKOFF_SECONDS={first}: must not exceed BRIDGE_RETRY_BACKOFF_MAX_SECONDS={longest}"
            raise Faults([text])
        return longest


class QueueSettings(TaskQueueSettings):
    """Settings of a command that reads queues or sends to them; each command checks which of them it requires."""

    sqs_queue_urls: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="SQS_QUEUE_URL")
    sqs_dlq_url: str | None = Field(None, validation_alias="SQS_DLQ_URL")

    @field_validator("sqs_queue_urls", mode="before")
    @classmethod
    def _are_queues(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, str):
            return value
        name = "SQS_QUEUE_URL"
        urls = rules.list_of(value, name, lambda url: rules.queue_url_fault(url, name))
        faults = rules.repeats(urls, name, rules.same_queue)
        task_queue = info.data.get("sqs_task_queue_url")
        if task_queue and any(rules.same_queue(task_queue, url) for url in urls):
            # On a queue of S3 events a Celery message is dead-lettered and never run, so every .delay() would fail.
            faults.append(f"SQS_TASK_QUEUE_URL={shown(task_queue)}: must not be one of the queues in SQS_QUEUE_URL")
        if faults:
            raise Faults(faults)
        return urls

    @field_validator("sqs_dlq_url")
    @classmethod
    def _is_other_queue(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is not None:
            _queue_url(url, "SQS_DLQ_URL")
            sources = (*info.data.get("sqs_queue_urls", ()), info.data.get("sqs_task_queue_url"))
            if any(source and rules.same_queue(source, url) for source in sources):
                raise ValueError(
                    "must not be a queue that the worker reads: it would receive dead-lettered messages again and again"
                )
        return url


class RoutingSettings(ResultsSettings, ArchiveSettings, IdempotencySettings):
    """Settings that decide which task takes a message; ``allowed_buckets`` are globs."""

    task_modules: Annotated[tuple[str, ...], NoDecode] = Field(
        validation_alias="BRIDGE_TASK_MODULES", description="the modules with your tasks, in order of precedence"
    )
    unrouted: Literal["dead-letter", "ignore"] = Field("dead-letter", validation_alias="BRIDGE_UNROUTED")
    allowed_buckets: Annotated[tuple[str, ...], NoDecode] = Field(("*",), validation_alias="BRIDGE_ALLOWED_BUCKETS")

    @field_validator("task_modules", mode="before")
    @classmethod
    def _are_modules(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        modules = rules.list_of(value, "BRIDGE_TASK_MODULES", rules.module_fault)
        if faults := rules.repeats(modules, "BRIDGE_TASK_MODULES", operator.eq):
            raise Faults(faults)
        return modules

    @field_validator("allowed_buckets", mode="before")
    @classmethod
    def _are_globs(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        return rules.list_of(value, "BRIDGE_ALLOWED_BUCKETS", rules.bucket_glob_fault)


class WorkerSettings(
    RoutingSettings, JobSettings, QueueSettings, IdempotencySettings, RetrySettings, HealthSettings, MonitorSettings
):
    """All settings of a worker; all durations are in seconds.

    ``log_format`` None means text on a terminal and JSON elsewhere. ``region`` is always set when
    load_worker_settings made the object.
    """

    sqs_queue_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        validation_alias="SQS_QUEUE_URL", description="the URL of the queue that S3 notifies"
    )
    visibility_timeout_seconds: int = Field(120, ge=6, le=43_200, validation_alias="BRIDGE_VISIBILITY_TIMEOUT_SECONDS")
    heartbeat: Annotated[bool, BeforeValidator(rules.on_off)] = Field(True, validation_alias="BRIDGE_HEARTBEAT")
    wait_time_seconds: int = Field(20, ge=0, le=20, validation_alias="BRIDGE_WAIT_TIME_SECONDS")
    poll_interval_seconds: float = Field(
        0, ge=0, le=300, allow_inf_nan=False, validation_alias="BRIDGE_POLL_INTERVAL_SECONDS"
    )
    poll_mode: Literal["after-empty", "paced"] = Field("after-empty", validation_alias="BRIDGE_POLL_MODE")
    max_messages_per_poll: int = Field(10, ge=1, le=10, validation_alias="BRIDGE_MAX_MESSAGES_PER_POLL")
    spare_receives: int = Field(10, ge=0, le=1000, validation_alias="BRIDGE_SPARE_RECEIVES")
    drain_seconds: float = Field(25, ge=0, le=7200, allow_inf_nan=False, validation_alias="BRIDGE_DRAIN_SECONDS")
    log_format: Literal["text", "json"] | None = Field(None, validation_alias="BRIDGE_LOG_FORMAT")
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], BeforeValidator(rules.level)] = (
        Field("INFO", validation_alias="BRIDGE_LOG_LEVEL")
    )
    pod_name: Annotated[str, BeforeValidator(rules.printable)] = Field(
        default_factory=socket.gethostname, validation_alias="BRIDGE_POD_NAME"
    )
    pushgateway_url: str | None = Field(None, validation_alias="BRIDGE_PUSHGATEWAY_URL")
    job_id: Annotated[str | None, BeforeValidator(rules.printable)] = Field(None, validation_alias="BRIDGE_JOB_ID")

    @field_validator("pushgateway_url")
    @classmethod
    def _is_gateway(cls, url: str | None) -> str | None:
        if url is not None and (fault := rules.gateway_fault(url)):
            raise ValueError(fault)
        return url

    @field_validator("heartbeat")
    @classmethod
    def _limit_fits_lease(cls, heartbeat: bool, info: ValidationInfo) -> bool:
        lease = info.data.get("visibility_timeout_seconds")
        limit = info.data.get("task_time_limit_seconds")
        if not heartbeat and lease is not None and limit is not None and limit > lease:
            raise ValueError(
                f"the time limit of {limit:g} s exceeds the visibility timeout of {lease} s, so SQS would deliver a "
                "message again while its task still runs: set BRIDGE_TASK_TIME_LIMIT_SECONDS (default 3600) to at most "
                f"{lease} or BRIDGE_VISIBILITY_TIMEOUT_SECONDS (default 120) to at least {limit:g}"
            )
        return heartbeat


class OperatorSettings(WorkerSettings):
    """Settings of an operator's command: those of a worker, with the same rules, none of them required."""

    sqs_queue_urls: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="SQS_QUEUE_URL")
    task_modules: Annotated[tuple[str, ...], NoDecode] = Field((), validation_alias="BRIDGE_TASK_MODULES")


def _queue_url(url: str | None, name: str) -> str | None:
    if url is not None and (fault := rules.queue_url_fault(url, name)):
        raise ValueError(fault)
    return url
