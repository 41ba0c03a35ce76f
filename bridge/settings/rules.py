"""Pure checks behind the settings: which names count, which values are sound, which region follows from them.

Nothing here reads the environment, a file or a clock: every function judges what it is given. Faults are texts fit for
one line of a terminal, whatever the environment holds.
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
"""Names that only the test-suite reads; a worker started in the same shell must not stumble over them."""

PREFIXES = ("BRIDGE_", "SQS_")

BROKER_NAMES = ("CELERY_BROKER_URL", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL")

TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
"""What the URL of the monitor bus may say about TLS: paths of files. Certificates are always verified."""


class Faults(ValueError):  # noqa: N818 - carries several faults, each a whole sentence that names its setting
    """One or more complete faults; ``texts`` holds them in the order in which they are to be told."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        super().__init__("; ".join(self.texts))


# --- names ------------------------------------------------------------------------------------------------------


def in_force(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that count: stripped, without empty ones (empty means unset) and without service links."""
    # Stripped because a secret made from a file ends with a newline, which would become part of a queue's name.
    stripped = {name: value.strip() for name, value in environ.items()}
    return {name: value for name, value in stripped.items() if value and not is_service_link(name, value)}


def unknown_names(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """A fault for every ``BRIDGE_*`` or ``SQS_*`` name that is neither in ``known`` nor a name of the test-suite."""
    known = tuple(known)
    # Compared without the prefix, so that BRIDGE_QUEUE_URL finds SQS_QUEUE_URL and the prefix alone is no likeness.
    bare = {name.partition("_")[2]: name for name in known}
    faults = []
    for name in sorted(names):
        if name.startswith(PREFIXES) and name not in known and name not in TEST_NAMES:
            near = difflib.get_close_matches(name.partition("_")[2], bare, n=1)
            faults.append(f"{shown(name)} is no setting" + (f": did you mean {bare[near[0]]}?" if near else ""))
    return faults


def redirects(environ: Mapping[str, str]) -> list[str]:
    """A fault for each of Celery's broker variables in ``environ`` (of which empty ones have been taken out).

    Celery prefers them to the configured broker (``celery.app.utils.Settings``), so the worker would listen elsewhere.
    The value is not repeated: a broker URL usually holds a password.
    """
    return [
        f"{name} is set (or -b was given) and would silently give the worker another broker: unset it, "
        "the queues are named by SQS_QUEUE_URL and SQS_TASK_QUEUE_URL"
        for name in BROKER_NAMES
        if name in environ
    ]


_LINK_START = r"(?:BRIDGE|SQS)(?:_[A-Z0-9_]+)?"


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes wrote this variable into the pod to announce a Service called ``bridge…`` or ``sqs…``.

    Both the name and the value must have the form that the kubelet gives them
    (https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables), so a mistyped setting
    is not taken for a link.
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
    """Protocol and port of ``tcp://10.0.0.1:80`` or ``tcp://[fd00::1]:80``; None for anything else."""
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
    "SQS_QUEUE_URL": "S3 cannot notify one, and a hidden message would hold up its whole group",
    "SQS_TASK_QUEUE_URL": "it takes no delay per message, which a countdown needs",
    "SQS_DLQ_URL": "the dead-letter queue of a standard queue must be a standard queue",
}


def list_of(text: str, name: str, rule: Callable[[str], str | None]) -> tuple[str, ...]:
    """The items of a comma-separated setting, in order. Raises Faults with what ``rule`` says of each item."""
    items = tuple(item for part in text.split(",") if (item := part.strip()))
    if not items:
        raise Faults([f"{name}={shown(text)}: names nothing"])
    faults = [f"{name}={shown(item)}: {fault}" for item in items if (fault := rule(item))]
    if faults:
        raise Faults(faults)
    return items


def repeats(items: tuple[str, ...], name: str, same: Callable[[str, str], bool]) -> list[str]:
    """A fault for every item that is the ``same`` as one before it."""
    return [
        f"{name}={shown(item)}: is named more than once"
        for position, item in enumerate(items)
        if any(same(item, earlier) for earlier in items[:position])
    ]


def queue_url_fault(url: str, name: str) -> str | None:
    """Why ``url`` is no queue that the setting ``name`` can hold, or None when it is one."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a bracket without its partner, a port that is no number
        return "must be the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
    if url.startswith("arn:"):
        return "is an ARN; the URL of the queue is wanted"
    if parts.username or parts.password:
        return "must not hold a user name or a password"
    if not sound or parts.query or parts.fragment or re.search(r"[^!-~]", url):
        return "must be the URL of a queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
    if parts.path.endswith(".fifo"):
        return f"is a FIFO queue: {_FIFO_REASONS[name]}"
    # The rule for a queue's name: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_CreateQueue.html
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)*/[A-Za-z0-9_-]{1,80}", parts.path):
        return "must end in the name of a queue (letters, digits, - and _)"
    return None


def same_queue(one: str, other: str) -> bool:
    """Whether two sound queue URLs name one queue: AWS gives a queue several hosts, all of one region."""
    return _identity(one) == _identity(other)


def _identity(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return region_of_queue_url(url) or parts.netloc.lower(), parts.path


def gateway_fault(url: str) -> str | None:
    """What is wrong with the URL of a Prometheus Pushgateway, or None."""
    try:
        parts = urlsplit(url)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # a port that is no number
        sound = False
    if not sound or not url.isprintable():
        return "must be http://HOST:PORT"
    return "must hold no password: it would be logged" if parts.password else None


def host_fault(host: str) -> str | None:
    """Why ``host`` is no address to listen on, or None. Names are not looked up: their answer may change."""
    if host == "localhost" or _is_ip(host):
        return None
    return "must be an IP address of this machine, such as 127.0.0.1, or 0.0.0.0 for all"


def bus_url_fault(url: str) -> str | None:
    """Why ``url`` is no Redis to be used as the monitor bus, or None. The texts never repeat it."""
    wanted = "must be redis://[user:password@]host[:port][/database], or rediss:// for TLS"
    # A semicolon would start a second address, for Kombu (kombu.Connection).
    if not url.isprintable() or any(c in url for c in " ;#\\"):
        return f"{wanted}; special characters of a password are percent-encoded"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return f"{wanted}; the port is a number, and special characters of a password are percent-encoded"
    if parts.scheme not in ("redis", "rediss") or not host or port == 0:
        return wanted
    if not re.fullmatch(r"(?:/[0-9]{0,5})?", parts.path):
        return f"{wanted}; the database is a number"
    options = parse_qsl(parts.query, keep_blank_values=True)
    if parts.query and (
        parts.scheme != "rediss" or not options or any(name not in TLS_OPTIONS or not value for name, value in options)
    ):
        return f"after the question mark only {', '.join(TLS_OPTIONS)} are known, with rediss://"
    return None


def module_fault(name: str) -> str | None:
    """Why ``name`` cannot be imported as a module of tasks, or None."""
    if name.endswith(".py"):
        return "is the name of a file; the module's name is wanted, without .py"
    if not all(part.isidentifier() for part in name.split(".")):
        return "must be the name of a module, such as my_files or my_project.tasks"
    return None


def bucket_glob_fault(glob: str) -> str | None:
    """Why ``glob`` can match no bucket's name, or None."""
    if not re.fullmatch(r"[A-Za-z0-9._*?\[\]!-]+", glob):
        return "must be the name of a bucket or a glob for names, such as uploads-*"
    return None


def results_url(url: str) -> str:
    """``s3://bucket/prefix/`` with exactly one slash at its end. Raises ValueError with the rule."""
    found = re.fullmatch(r"s3://([A-Za-z0-9._-]{3,255})((?:/[^/]+)*)/?", url)
    if found is None or not found[2].isprintable():
        raise ValueError("must be s3://bucket/prefix/")
    if not found[2]:
        # With no prefix the whole bucket would count as our own output, and every event of it would be ignored.
        raise ValueError("must be s3://bucket/prefix/: without a prefix all of the bucket would count as our output")
    return f"s3://{found[1]}{found[2]}/"


def idempotency_url(url: str) -> str:
    """``s3://bucket/prefix`` without a slash at its end, or ``dynamodb://table``. Raises ValueError with the rule."""
    if url.startswith("dynamodb:"):
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html
        if re.fullmatch(r"dynamodb://[A-Za-z0-9._-]{3,255}/?", url) is None:
            raise ValueError("must be dynamodb://table")
        return url.rstrip("/")
    found = re.fullmatch(r"s3://([A-Za-z0-9._-]{3,255})((?:/[^/]+)*)/?", url)
    if found is None or not found[2].isprintable():
        raise ValueError("must be s3://bucket/prefix or dynamodb://table")
    if not found[2]:
        raise ValueError("must be s3://bucket/prefix: without a prefix all of the bucket would count as our output")
    return f"s3://{found[1]}{found[2]}"


# --- values as pydantic hands them over --------------------------------------------------------------------------


def on_off(value: object) -> object:
    """``on`` or ``off`` as a bool; what is no text is left as it is. Raises ValueError with the rule."""
    if isinstance(value, str):
        if value not in ("on", "off"):
            raise ValueError("must be on or off")
        return value == "on"
    return value


def level(value: object) -> object:
    """A log level in capitals."""
    return value.upper() if isinstance(value, str) else value


def printable(value: object) -> object:
    """The value, if it is printable. Raises ValueError with the rule."""
    if isinstance(value, str) and not value.isprintable():
        raise ValueError("must be printable")
    return value


def address(value: object) -> object:
    """The value, if a server can listen on it. Raises ValueError with the rule."""
    if isinstance(value, str) and (fault := host_fault(value)):
        raise ValueError(fault)
    return value
