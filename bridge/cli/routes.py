"""``brigade routes``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from bridge.cli.exit_codes import errors_reported
from bridge.cli.printing import aligned
from bridge.cli.send import Attribute
from bridge.text import printable

if TYPE_CHECKING:
    from bridge.messages.explain import Subject
    from bridge.messages.routing import Rules, ToTask
    from bridge.messages.verdicts import Verdict


@click.command(
    "routes",
    epilog="""Examples:

\b
  brigade routes s3://uploads-eu/incoming/a.csv
  brigade routes incoming/a.csv --bucket uploads-eu --event ObjectRemoved:Delete
  brigade routes --body event.json
  brigade dlq export | head -1 | jq -r .body | brigade routes --body -""",
)
@click.argument("key", required=False)
@click.option("--bucket", help="The bucket, if KEY is not an s3:// URL.")
@click.option("--event", "event_name", default="ObjectCreated:Put", show_default=True, help="The event's name.")
@click.option("--size", type=click.IntRange(min=0), help="The object's size in bytes, for tasks with max_bytes.")
@click.option("--body", type=click.File(encoding="utf-8"), help="A file with a message body, - for standard input.")
@click.option(
    "--attribute", "attributes", type=Attribute(), multiple=True, help="A message attribute; may be repeated."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object.")
def command(
    key: str | None,
    bucket: str | None,
    event_name: str,
    size: int | None,
    body: Any,
    attributes: tuple[tuple[str, str], ...],
    as_json: bool,
) -> int:
    """Say which task would take an object with this KEY, or a message with this body, and why the others would not.

    Needs BRIDGE_TASK_MODULES and neither a queue nor AWS; the settings that bear on it (BRIDGE_ALLOWED_BUCKETS,
    BRIDGE_UNROUTED, the output prefixes) count as they do for a worker. Exit code 1 when no task takes it.
    """
    if (key is None) == (body is None):
        raise click.UsageError("give either KEY or --body")
    values = {name: {"DataType": "String", "StringValue": text} for name, text in attributes}
    with errors_reported():
        rules = _rules()
    text = _read(body) if key is None else _body(key, bucket, event_name, size, rules)
    from bridge.messages.explain import explain
    from bridge.messages.routing import ToTask, route

    verdict = route(text, values, rules)
    subjects = explain(text, values, rules)
    click.echo(json.dumps(_in_json(verdict, subjects), indent=2) if as_json else _in_words(verdict, subjects))
    return 0 if isinstance(verdict, ToTask) else 1


def _rules() -> Rules:
    from bridge.messages.routing import Rules
    from bridge.s3.outputs import output_prefixes, pairs
    from bridge.settings.loading import load_routing_settings
    from bridge.task.registry import declared_routes, import_tasks

    settings = load_routing_settings()
    import_tasks(settings.task_modules)
    outputs = output_prefixes(
        results_url=settings.results_url, archive_url=settings.archive_url, idempotency_url=settings.idempotency_url
    )
    return Rules(
        routes=declared_routes(settings.task_modules),
        allowed_buckets=settings.allowed_buckets,
        own_outputs=pairs(outputs),
        unrouted=settings.unrouted,
    )


def _body(key: str, bucket: str | None, event_name: str, size: int | None, rules: Rules) -> str:
    from bridge.s3.event import ObjectRecord
    from bridge.s3.event_body import put_event_body

    if key.startswith("s3://"):
        if bucket is not None:
            raise click.UsageError("--bucket needs a KEY that is not an s3:// URL")
        bucket, _, key = key.removeprefix("s3://").partition("/")
    if bucket is None:
        bucket = _any_bucket(rules)
    if not bucket or not key:
        raise click.UsageError("KEY is s3://bucket/key, or a key with --bucket")
    name = event_name.removeprefix("s3:")
    return put_event_body(ObjectRecord(bucket=bucket, key=key, size=size, event_name=name))


def _any_bucket(rules: Rules) -> str:
    """Return a bucket for a key alone: the only one allowed, or any name where no rule asks for it."""
    [first, *others] = rules.allowed_buckets
    if not others and not set(first) & set("*?["):
        return first
    if rules.allowed_buckets == ("*",) and all(route.bucket == "*" for route in rules.routes):
        return "any-bucket"
    raise click.UsageError("the rules ask for the bucket: give s3://bucket/key, or --bucket")


def _read(body: Any) -> str:
    try:
        text: str = body.read()
    except UnicodeDecodeError as error:
        raise click.UsageError("--body: is not UTF-8, so no message can have it") from error
    return text.removesuffix("\n") if body is sys.stdin else text


def _in_json(verdict: ToTask | Verdict, subjects: list[Subject]) -> dict[str, Any]:
    from bridge.messages.routing import ToTask

    if isinstance(verdict, ToTask):
        end: dict[str, Any] = {"outcome": "task", "task": verdict.task, "reason": None, "error": None}
    else:
        end = {
            "outcome": verdict.outcome,
            "task": None,
            "reason": verdict.reason,
            "error": getattr(verdict, "error", None),
        }
    described = [
        {
            "subject": subject.name,
            "note": subject.note,
            "tasks": [{"task": task, "takes": not why, "why_not": list(why)} for task, why in subject.tasks],
        }
        for subject in subjects
    ]
    return {**end, "subjects": described}


def _in_words(verdict: ToTask | Verdict, subjects: list[Subject]) -> str:
    from bridge.messages.routing import ToTask

    blocks = []
    for subject in subjects:
        lines = [printable(subject.name)] + ([f"  {printable(subject.note)}"] if subject.note else [])
        taker = next((task for task, why in subject.tasks if not why), None)
        rows = [(f"  {task}", _answer(task, why, taker)) for task, why in subject.tasks]
        blocks.append("\n".join(lines + ([aligned(rows)] if rows else ["  no task takes files or messages"])))
    if isinstance(verdict, ToTask):
        end = f"→ {verdict.task}"
    else:
        error = getattr(verdict, "error", None)
        end = f"→ {verdict.outcome} ({verdict.reason})" + (f": {printable(error)}" if error else "")
    return "\n\n".join([*blocks, end])


def _answer(task: str, why: tuple[str, ...], taker: str | None) -> str:
    if why:
        return printable(f"no: {'; '.join(why)}")
    return "yes" if task == taker else f"would, but {taker} comes first"
