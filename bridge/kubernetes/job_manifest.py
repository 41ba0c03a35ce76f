"""A message and a template → the manifest of a Kubernetes Job. Pure: no file, no cluster, no clock.

The template is YAML that has been parsed already, and a message only ever fills in parts of its strings: whatever is in
a body, it cannot add a field, end a string or reach a shell. It may only give arguments (``ARGUMENT_PLACES``), so that
who may send a message does not choose an image, a volume or a service account.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bridge.errors import JobRefused, SettingsError
from bridge.messages.message import Message

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "bucket-brigade"
#: The body of the message; the name is that of the queue-watcher, whose Jobs and ours can be requeued alike.
TASK_ANNOTATION = "task"
#: Where body and attributes lie when they are too much for annotations.
TASK_URL_ANNOTATION = "bucket-brigade/task-url"
ATTRIBUTES_ANNOTATION = "bucket-brigade/message-attributes"
MESSAGE_ID_ANNOTATION = "bucket-brigade/message-id"
QUEUE_URL_ANNOTATION = "bucket-brigade/queue-url"
#: Kubernetes takes 256 KiB of annotations on an object; the rest is left for the template's own.
MAX_ANNOTATED_BYTES = 200 * 1024
#: A Job's name becomes a label of its pods, and a label has 63 characters.
MAX_NAME_CHARACTERS = 63
_ID_CHARACTERS = 36
MAX_PREFIX_CHARACTERS = MAX_NAME_CHARACTERS - _ID_CHARACTERS - 1

ARGUMENT_PLACES = "command, args, the values of env, annotations and labels"
_CONTAINER = r"spec\.template\.spec\.(?:containers|initContainers)\.\d+\."
# Where Kubernetes itself replaces $(NAME) by a variable of the container
# (https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/).
_EXPANDED = re.compile(_CONTAINER + r"(?:command\.\d+|args\.\d+|env\.\d+\.value)", re.DOTALL)
_PLAIN = re.compile(r"(?:spec\.template\.)?metadata\.(?:annotations|labels)\..+", re.DOTALL)
_PLACEHOLDER = re.compile(r"\{\{ *([A-Za-z_][A-Za-z0-9_.-]*) *(?:\|([^{}]*))?\}\}")
_DNS_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


def check_template(template: Any) -> dict[str, Any]:
    """Return the template; raises SettingsError, one line, for what could never become a Job."""
    if not isinstance(template, dict):
        raise SettingsError("is not a manifest: it must be a mapping")
    if (template.get("apiVersion"), template.get("kind")) != ("batch/v1", "Job"):
        raise SettingsError("must be of apiVersion batch/v1 and kind Job")
    for path, value in _strings(template):
        if "{{" in _PLACEHOLDER.sub("", value):
            raise SettingsError(f"{path}: {{{{name}}}} or {{{{name|default}}}} is wanted where {{{{ stands")
        if not _PLACEHOLDER.search(value):
            continue
        if not _EXPANDED.fullmatch(path) and not _PLAIN.fullmatch(path):
            raise SettingsError(f"{path}: a message may only fill {ARGUMENT_PLACES}")
        if _EXPANDED.fullmatch(path) and re.search(r"\$(?:\([^)]*)?\{\{", value):
            # $({{name}}) would let a message choose which variable of the container is shown to the command.
            raise SettingsError(f"{path}: no {{{{name}}}} may stand behind a $")
    metadata = template.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    if not isinstance(name, str) or not _DNS_LABEL.fullmatch(name) or len(name) > MAX_PREFIX_CHARACTERS:
        raise SettingsError(
            f"metadata.name must be a DNS label of at most {MAX_PREFIX_CHARACTERS} characters: a Job's name is made of "
            "it and the message id"
        )
    for key in ("annotations", "labels"):
        if not isinstance(template["metadata"].get(key) or {}, dict):
            raise SettingsError(f"metadata.{key} must be a mapping")
    return template


def job_name(prefix: str, message_id: str) -> str:
    """Return the name of a message's Job, the same each time; raises JobRefused for an id that fits no name."""
    name = f"{prefix}-{message_id.lower()}"
    if len(name) > MAX_NAME_CHARACTERS or not _DNS_LABEL.fullmatch(name):
        raise JobRefused(f"the message id {message_id[:100]!r} cannot be part of a Job's name")
    return name


def job_manifest(template: Mapping[str, Any], message: Message, *, task_url: str | None = None) -> dict[str, Any]:
    """Return the Job for a message, made of a checked template.

    ``task_url`` is where the body was put that is too long for an annotation (``too_long``). Raises JobRefused when the
    template asks for a field that the body does not have, or a value cannot be an argument.
    """
    body_fields = _fields(message.body)

    def value_of(name: str) -> str | None:
        if name == "message.id":
            return message.id
        return message.body if name == "message.body" else (body_fields or {}).get(name)

    job: dict[str, Any] = _filled(template, "", value_of, is_json=body_fields is not None)
    metadata = job["metadata"]
    metadata["name"] = job_name(metadata["name"], message.id)
    metadata["labels"] = {**(metadata.get("labels") or {}), MANAGED_BY: MANAGER}
    kept = {TASK_URL_ANNOTATION: task_url} if task_url else {TASK_ANNOTATION: message.body}
    if message.message_attributes and not task_url:
        kept[ATTRIBUTES_ANNOTATION] = _attributes_text(message)
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        **kept,
        MESSAGE_ID_ANNOTATION: message.id,
        QUEUE_URL_ANNOTATION: message.queue_url,
    }
    return job


def too_long(message: Message) -> bool:
    """Say whether body and attributes are more than the annotations of a Job may hold."""
    return len(message.body.encode("utf-8", "surrogatepass")) + len(_attributes_text(message)) > MAX_ANNOTATED_BYTES


def stored_task(message: Message) -> bytes:
    """Return what is stored instead of the annotations: ``{"body": …, "message_attributes": {…}}``."""
    return json.dumps({"body": message.body, "message_attributes": json.loads(_attributes_text(message))}).encode()


def _attributes_text(message: Message) -> str:
    # ASCII, so that its length is its size. SQS may return list values, which it accepts from no sender.
    kept = ("DataType", "StringValue", "BinaryValue")
    attributes = message.to_dict()["message_attributes"]
    return json.dumps({name: {k: value[k] for k in kept if k in value} for name, value in attributes.items()})


def _fields(body: str) -> dict[str, str] | None:
    """The fields of a JSON object as texts, those that are null left out; None when the body is not an object."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    return {
        name: value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        for name, value in content.items()
        if value is not None
    }


def _filled(value: Any, path: str, value_of: Callable[[str], str | None], *, is_json: bool) -> Any:
    if isinstance(value, dict):
        return {k: _filled(v, f"{path}.{k}" if path else str(k), value_of, is_json=is_json) for k, v in value.items()}
    if isinstance(value, list):
        return [_filled(v, f"{path}.{n}", value_of, is_json=is_json) for n, v in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        text = value_of(name)
        if default is not None:
            text = text or default
        if text is None:
            why = "has no such field" if is_json else "is not a JSON object"
            raise JobRefused(f"the template asks for {{{{{name}}}}} in {path}, and the body {why}")
        if not _is_argument(text):
            raise JobRefused(f"{{{{{name}}}}} holds a character that no argument can hold (NUL, half a surrogate pair)")
        return text.replace("$", "$$") if _EXPANDED.fullmatch(path) else text

    return _PLACEHOLDER.sub(replacement, value)  # one pass: what came from a message is not looked at again


def _is_argument(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _strings(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every string with its path; a key counts too, at a path where no placeholder may stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield f"the key {key} in {path or 'the manifest'}", str(key)
            yield from _strings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{path}.{number}")
    elif isinstance(value, str):
        yield path, value
