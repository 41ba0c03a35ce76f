"""The checks behind the settings: which names count and which values are valid. Pure.

Nothing here reads the environment, a file or a clock: every function checks only its arguments. An error text is always
one line that is safe to print to a terminal, whatever the environment holds.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from urllib.parse import parse_qsl, urlsplit

from bridge.settings.region import region_of_queue_url
from bridge.text import shown

TEST_NAMES = frozenset({"SQS_TEST_ENDPOINT"})
"""Names that only the test suite reads; a worker started in the same shell must not refuse them."""

PREFIXES = ("BRIDGE_", "SQS_")

BROKER_NAMES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")

TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""The TLS options that the URL of the monitor bus may have: file paths. Certificates are always verified."""


class Faults(ValueError):  # noqa: N818 - carries several errors, each a complete text that names its setting
    """One or more complete error texts; ``texts`` holds them in the order in which to report them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        super().__init__("; ".join(self.texts))


# --- names ------------------------------------------------------------------------------------------------------


def in_force(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that count: stripped, without empty ones (empty means unset) and without service links."""
    # Stripped because a secret created from a file ends with a newline, which would become part of a queue name.
    stripped = {name: value.strip() for name, value in environ.items()}
    return {name: value for name, value in stripped.items() if value and not is_service_link(name, value)}


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return an error for each ``BRIDGE_*`` or ``SQS_*`` name that is not in ``known`` and not in TEST_NAMES."""
    known = tuple(known)
    # Compared without the prefix: BRIDGE_QUEUE_URL must match SQS_QUEUE_URL, and a shared prefix is no similarity.
    bare = {name.partition("_")[2]: name for name in known}
    faults = []
    for name in sorted(names):
        if name.startswith(PREFIXES) and name not in known and name not in TEST_NAMES:
            near = difflib.get_close_matches(name.partition("_")[2], bare, n=1)
            faults.append(f"unknown setting {shown(name)}" + (f"; did you mean {bare[near[0]]}?" if near else ""))
    return faults


def redirects(environ: Mapping[str, str]) -> list[str]:
    """Return an error for each of Celery's broker variables in ``environ``, which holds no empty variables.

    Celery prefers them to the configured broker (``celery.app.utils.Settings``), so the worker would listen elsewhere.
    The text omits the value, because a broker URL usually contains a password.
    """
    return [
        f"{name} is set (or -b was given) and would make the worker use another broker: unset it "
        "and set the queues in SQS_QUEUE_URL and SQS_TASK_QUEUE_URL"
        for name in BROKER_NAMES
        if name in environ
    ]


_LINK_START = r"(?:BRIDGE|SQS)(?:_[A-Z0-9_]+)?"


def is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes set this variable in the pod for a Service called ``bridge…`` or ``sqs…``.

    Both the name and the value must have the form that the kubelet gives them
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), so a mistyped setting
    does not pass as a service link.
    """
    if re.fullmatch(_LINK_START + r"_SERVICE_HOST", name):
        return _is_ip(value)
    if re.fullmatch(_LINK_START + r"_SERVICE_PORT(?:_[A-Z0-9_]+)?", name):
        return _is_port(value)
    one_port = re.fullmatch(_LINK_START + r"_PORT_([0-9]+)_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?", name)
    if one_port is None:
        return re.fullmatch(_LINK_START + r"_PORT", name) is not None and _link_target(value) is not None
    port, protocol, part = one_port[1], one_port[2].lower(), one_port[3]
    expected: dict[str | None, bool] = {
        "_PROTO": value == protocol,
        "_PORT": value == port,
        "_ADDR": _is_ip(value),
        None: _link_target(value) == (protocol, port),
    }
    return expected[part]


def _link_target(value: str) -> tuple[str, str] | None:
    """Return protocol and port of ``tcp://10.0.0.1:80`` or ``tcp://[fd00::1]:80``; None for anything else."""
    found = re.fullmatch(r"(tcp|udp|sctp)://(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]+)", value)
    if found is None or not _is_ip(found[2] or found[3]) or not _is_port(found[4]):
        return None
    return found[1], found[4]


def _is_ip(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


def _is_port(value: str) -> bool:
    return re.fullmatch(r"[0-9]{1,5}", value) is not None and 0 < int(value) < 65_536


# --- values -----------------------------------------------------------------------------------------------------

_FIFO_REASONS = {
    "SQS_QUEUE_URL": "S3 cannot send events to one, and a hidden message would block its message group",
    "SQS_TASK_QUEUE_URL": "it supports no delay per message, which countdown needs",
    "SQS_DLQ_URL": "the dead-letter queue of a standard queue must be a standard queue",
}


def list_of(text: str, name: str, rule: Callable[[str], str | None]) -> tuple[str, ...]:
    """Return the items of a comma-separated setting, in order. Raises Faults with the text of ``rule`` per item."""
    items = tuple(item for part in text.split(",") if (item := part.strip()))
    if not items:
        raise Faults([f"{name}={shown(text)}: must contain at least one value"])
    faults = [f"{name}={shown(item)}: {fault}" for item in items if (fault := rule(item))]
    if faults:
        raise Faults(faults)
    return items


def repeats(items: tuple[str, ...], name: str, same: Callable[[str, str], bool]) -> list[str]:
    """Return an error for each item that is the ``same`` as an earlier one."""
    return [
        f"{name}={shown(item)}: is listed more than once"
        for position, item in enumerate(items)
        if any(same(item, earlier) for earlier in items[:position])
    ]


def queue_url_fault(url: str, name: str) -> str | None:
    """Return why ``url`` is not a valid queue URL for the setting ``name``, or None when it is valid."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # an unmatched bracket, or a port that is not a number
        return "must be the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
    if url.startswith("arn:"):
        return "is an ARN: give the URL of the queue"
    if parts.username or parts.password:
        return "must not contain a user name or a password"
    if not valid or parts.query or parts.fragment or re.search(r"[^!-~]", url):
        return "must be the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
    if parts.path.endswith(".fifo"):
        return f"is a FIFO queue: {_FIFO_REASONS[name]}"
    # Rule for queue names: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)*/[A-Za-z0-9_-]{1,80}", parts.path):
        return "must end with a queue name (letters, digits, - and _)"
    return None


def same_queue(one: str, other: str) -> bool:
    """Return whether two valid queue URLs name the same queue: AWS has several hosts per region for one queue."""
    return _identity(one) == _identity(other)


def _identity(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return region_of_queue_url(url) or parts.netloc.lower(), parts.path


def gateway_fault(url: str) -> str | None:
    """Return what is wrong with the URL of a Prometheus Pushgateway, or None."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is not a number
        valid = False
    if not valid or not url.isprintable():
        return "must be http://HOST:PORT"
    return "must not contain a password: it would be logged" if parts.password else None


def host_fault(host: str) -> str | None:
    """Return why a server cannot listen on ``host``, or None. Host names are not resolved: the answer may change."""
    if host == "localhost" or _is_ip(host):
        return None
    return "must be an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all addresses"


def bus_url_fault(url: str) -> str | None:
    """Return why ``url`` cannot be the Redis URL of the monitor bus, or None. The text never repeats ``url``."""
    expected = "must be redis://[user:password@]host[:port][/database], or rediss:// for TLS"
    # Kombu takes a semicolon as the start of a second address (kombu.Connection).
    if not url.isprintable() or any(c in url for c in " ;#\\"):
        return f"{expected}; percent-encode special characters in the password"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{expected}; the port must be a number; percent-encode special characters in the password"
    if parts.scheme not in ("redis", "rediss") or not host or port == 0:
        return expected
    if not re.fullmatch(r"(?:/[0-9]{0,5})?", parts.path):
        return f"{expected}; the database must be a number"
    options = parse_qsl(parts.query, keep_blank_values=True)
    if parts.query and (
        parts.scheme != "rediss" or not options or any(name not in TLS_OPTIONS or not value for name, value in options)
    ):
        return f"the query may contain only {', '.join(TLS_OPTIONS)}, and only with rediss://"
    return None


def module_fault(name: str) -> str | None:
    """Return why ``name`` is not the name of a task module, or None."""
    if name.endswith(".py"):
        return "is a file name: give the module name, without .py"
    if not all(part.isidentifier() for part in name.split(".")):
        return "must be a module name, such as my_files or my_project.tasks"
    return None


def bucket_glob_fault(glob: str) -> str | None:
    """Return why ``glob`` can match no bucket name, or None."""
    if not re.fullmatch(r"[A-Za-z0-9._*?\[\]!-]+", glob):
        return "must be a bucket name or a glob for bucket names, such as uploads-*"
    return None


_NO_PREFIX = "without a prefix the worker would take all objects of the bucket for its own output and ignore them"


def results_url(url: str) -> str:
    """Return ``s3://bucket/prefix/`` with exactly one slash at the end. Raises ValueError with the rule."""
    found = re.fullmatch(r"s3://([A-Za-z0-9._-]{3,255})((?:/[^/]+)*)/?", url)
    if found is None or not found[2].isprintable():
        raise ValueError("must be s3://bucket/prefix/")
    if not found[2]:
        # The worker ignores events for its own output. Without a prefix it would ignore every event of the bucket.
        raise ValueError(f"must be s3://bucket/prefix/: {_NO_PREFIX}")
    return f"s3://{found[1]}{found[2]}/"


def idempotency_url(url: str) -> str:
    """Return ``s3://bucket/prefix`` without a final slash, or ``dynamodb://table``. Raises ValueError with the rule."""
    if url.startswith("dynamodb:"):
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
        if re.fullmatch(r"dynamodb://[A-Za-z0-9._-]{3,255}/?", url) is None:
            raise ValueError("must be dynamodb://table")
        return url.rstrip("/")
    found = re.fullmatch(r"s3://([A-Za-z0-9._-]{3,255})((?:/[^/]+)*)/?", url)
    if found is None or not found[2].isprintable():
        raise ValueError("must be s3://bucket/prefix or dynamodb://table")
    if not found[2]:
        raise ValueError(f"must be s3://bucket/prefix: {_NO_PREFIX}")
    return f"s3://{found[1]}{found[2]}"


# --- values as pydantic passes them ------------------------------------------------------------------------------


def on_off(value: object) -> object:
    """Return ``on`` or ``off`` as a bool, and a value that is not a str unchanged. Raises ValueError with the rule."""
    if isinstance(value, str):
        if value not in ("on", "off"):
            raise ValueError("must be on or off")
        return value == "on"
    return value


def level(value: object) -> object:
    """Return a log level in capitals."""
    return value.upper() if isinstance(value, str) else value


def printable(value: object) -> object:
    """Return the value if it is printable. Raises ValueError with the rule."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must contain only printable characters")
    return value


def address(value: object) -> object:
    """Return the value if a server can listen on it. Raises ValueError with the rule."""
    if isinstance(value, str) and (fault := host_fault(value)):
        raise ValueError(fault)
    return value
