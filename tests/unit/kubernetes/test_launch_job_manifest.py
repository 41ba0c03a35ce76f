"""A message and a template make a Job: what is filled in, what is refused, and what no message can do."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from bridge import Message
from bridge.errors import JobRefused, SettingsError
from bridge.kubernetes.job_manifest import (
    MAX_ANNOTATED_BYTES,
    check_template,
    job_manifest,
    job_name,
    stored_task,
    too_long,
)
from bridge.kubernetes.launched_jobs import launched_job, sendable_attributes
from tasks.launch_job import DEFAULT_TEMPLATE, read_template
from tests.support.kube_stand_in import check

ID = "6e8f5b7c-3c0e-4b57-9a36-0d7c7c0f3a11"
QUEUE = "http://localhost:9324/000000000000/tasks"


def message(body: Any, **attributes: Any) -> Message:
    """A message with this body (JSON unless it is a text) and these message attributes."""
    text = body if isinstance(body, str) else json.dumps(body)
    return Message(
        id=ID,
        body=text,
        queue_url=QUEUE,
        receipt_handle="handle",
        received_at=datetime(2025, 11, 28, 14, 30, tzinfo=UTC),
        message_attributes=attributes,
    )


def template(*args: str, **changed: Any) -> dict[str, Any]:
    """A sound template whose container has these arguments."""
    container = {"name": "c", "image": "i:1", "args": list(args), **changed}
    pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "t"}, "spec": {"template": pod}}


def args_of(*args: str, body: Any, **attributes: Any) -> list[str]:
    """The arguments that a message makes of these."""
    job = job_manifest(check_template(template(*args)), message(body, **attributes))
    found: list[str] = job["spec"]["template"]["spec"]["containers"][0]["args"]
    return found


def expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of an argument: $(NAME) is a variable, $$ is $ (its package third_party/forked/golang)."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def test_the_seeds_message_with_the_default_template() -> None:
    """The queue-watcher's own example becomes a valid Job with its settings: retries, requests, no TTL."""
    body = '{"target": "", "duration": "10"}'
    job = job_manifest(read_template(None), message(body))

    check(job)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["ping", "-c", "10", "--", "127.0.0.1"]
    assert container["resources"]["requests"] == {"cpu": "100m", "memory": "100Mi"}
    assert job["spec"]["backoffLimit"] == 3
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["metadata"]["name"] == f"task-{ID}"
    assert job["metadata"]["annotations"] == {
        "task": body,
        "bucket-brigade/message-id": ID,
        "bucket-brigade/queue-url": QUEUE,
    }


@pytest.mark.parametrize(
    ("argument", "body", "filled"),
    [
        ("{{target}}", {"target": "a b; rm -rf /"}, "a b; rm -rf /"),
        ("--x={{ target }}/{{n}}", {"target": "h", "n": 3}, "--x=h/3"),
        ("{{list}}", {"list": [1, {"a": None}]}, '[1,{"a":null}]'),
        ("{{yes}}", {"yes": True}, "true"),
        ("{{gone|there}}", {}, "there"),
        ("{{empty|there}}", {"empty": ""}, "there"),
        ("{{null|there}}", {"null": None}, "there"),
        ("{{gone|}}", {}, ""),
        ("{{zero|there}}", {"zero": 0}, "0"),
        ("{{message.id}}", {}, ID),
        ("{{message.body}}", {"a": 1}, '{"a": 1}'),
        ("{{message.body}}", "no JSON", "no JSON"),
        ("{{a}}", {"a": "{{b}}", "b": "x"}, "{{b}}"),
        ("{{a}}", {"a": "$(TOKEN) $$ $"}, "$$(TOKEN) $$$$ $$"),
        ("plain $(HOME)", {}, "plain $(HOME)"),
    ],
)
def test_what_a_placeholder_becomes(argument: str, body: Any, filled: str) -> None:
    """Fields are texts as they are, other values JSON; a default stands for one that is missing, null or empty."""
    assert args_of(argument, body=body) == [filled]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("garbage", "asks for {{target}} in spec.template.spec.containers.0.args.0, and the body is not a JSON object"),
        ("[1]", "the body is not a JSON object"),
        ('{"other": 1}', "the body has no such field"),
        ('{"target": null}', "the body has no such field"),
        ('{"target": "\\u0000"}', "a character that no argument can hold"),
        ('{"target": "\\ud800"}', "a character that no argument can hold"),
        ("[" * 100_000, "the body is not a JSON object"),
    ],
)
def test_a_message_that_cannot_be_a_job_is_refused(body: str, told: str) -> None:
    """What no later try could mend is refused with the reason."""
    with pytest.raises(JobRefused, match=re.escape(told)):
        args_of("{{target}}", body=body)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"image": "{{image}}"}, "containers.0.image: a message may only fill command, args"),
        ({"name": "{{name}}"}, "containers.0.name: a message may only fill"),
        ({"{{key}}": "x"}, "the key {{key}} in spec.template.spec.containers.0: a message may only fill"),
        ({"args": ["{{a b}}"]}, "args.0: {{name}} or {{name|default}} is wanted where {{ stands"),
        ({"args": ["${{a}}"]}, "args.0: no {{name}} may stand behind a $"),
        ({"args": ["$({{a}})"]}, "args.0: no {{name}} may stand behind a $"),
        ({"args": ["$(A{{a}})"]}, "args.0: no {{name}} may stand behind a $"),
    ],
)
def test_a_template_gives_messages_no_more_than_arguments(changed: dict[str, Any], told: str) -> None:
    """A placeholder where a message could choose an image, a name, a key or a variable is refused at start."""
    with pytest.raises(SettingsError, match=re.escape(told)):
        check_template(template(**changed))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is not a manifest"),
        ("[a]", "is not a manifest"),
        ("a: [", "expected the node content"),
        ("kind: Pod\napiVersion: v1", "must be of apiVersion batch/v1 and kind Job"),
        ("kind: Job\napiVersion: batch/v1", "metadata.name must be a DNS label"),
        ("kind: Job\napiVersion: batch/v1\nmetadata: {name: Upper}", "metadata.name must be a DNS label"),
        (f"kind: Job\napiVersion: batch/v1\nmetadata: {{name: {'a' * 27}}}", "of at most 26 characters"),
        ("kind: Job\napiVersion: batch/v1\nmetadata: {name: a, labels: [b]}", "metadata.labels must be a mapping"),
        ("a: 1\n---\nb: 2", "expected a single document"),
    ],
)
def test_an_unfit_template_is_refused_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    """The line names the setting, the file and what is wrong with it."""
    path = tmp_path / "job.yaml"
    path.write_text(content)
    with pytest.raises(SettingsError, match=re.escape(told)) as caught:
        read_template(str(path))
    assert str(caught.value).startswith(f"BRIDGE_JOB_TEMPLATE={path}: ")
    assert len(str(caught.value).splitlines()) == 1


def test_a_template_that_is_not_there_is_refused() -> None:
    """A path that leads nowhere is told with the system's own words."""
    with pytest.raises(SettingsError, match=r"^BRIDGE_JOB_TEMPLATE=/no/such: No such file or directory$"):
        read_template("/no/such")


_shape = st.recursive(st.text(max_size=8), lambda inner: st.lists(inner, max_size=3), max_leaves=4)


@given(
    st.dictionaries(st.sampled_from(["target", "duration", "x"]), st.text(max_size=30) | st.integers() | _shape),
)
@example({"target": '", "privileged": true}]', "duration": "1\n  hostNetwork: true"})
@example({"target": "$(SECRET)", "duration": "$$(SECRET)"})
@example({"target": "{{message.body}}", "duration": "{{x|y}}"})
@example({"target": "$", "duration": "(SECRET)"})
def test_no_message_changes_the_form_of_a_job(fields: dict[str, Any]) -> None:
    """Whatever a body holds, the Job has the template's form, and its arguments reach the process as they were sent."""
    source = template("{{target|t}}", "a{{duration|d}}{{target|t}}", env=[{"name": "E", "value": "{{x|e}}"}])
    body = message(fields)
    try:
        job = job_manifest(check_template(source), body)
    except JobRefused as error:
        assert "no argument can hold" in str(error)
        return
    container = job["spec"]["template"]["spec"]["containers"][0]
    texts = {k: v if isinstance(v, str) else json.dumps(v, separators=(",", ":")) for k, v in fields.items()}
    target, duration, value = (texts.get(k) or d for k, d in (("target", "t"), ("duration", "d"), ("x", "e")))
    secret = {"SECRET": "leaked"}
    assert [expanded(text, secret) for text in container["args"]] == [target, f"a{duration}{target}"]
    assert expanded(container["env"][0]["value"], secret) == value
    expected = template(*container["args"], env=container["env"])["spec"]
    assert {**job, "metadata": None} == {"apiVersion": "batch/v1", "kind": "Job", "metadata": None, "spec": expected}
    assert job["metadata"]["name"] == f"t-{ID}"


def test_annotations_and_labels_may_be_filled_and_keep_their_dollars() -> None:
    """In annotations and labels nothing is expanded by Kubernetes, so nothing is escaped; ours are added to them."""
    source = template()
    source["metadata"] |= {"annotations": {"who.is/it": "{{who}}"}, "labels": {"team": "{{team}}"}}
    job = job_manifest(check_template(source), message({"who": "$(ME)", "team": "blue"}))

    assert job["metadata"]["annotations"]["who.is/it"] == "$(ME)"
    assert job["metadata"]["labels"] == {"team": "blue", "app.kubernetes.io/managed-by": "bucket-brigade"}
    assert source["metadata"]["name"] == "t", "the template itself is left as it is"


def test_the_name_follows_from_the_message_id() -> None:
    """One id is one name, of at most 63 characters; an id of another form is refused rather than cut."""
    assert job_name("a" * 26, ID.upper()) == f"{'a' * 26}-{ID}"
    assert len(job_name("a" * 26, ID)) == 63
    for odd in ("a" * 62, "no/slash", "dot.", "-"):
        with pytest.raises(JobRefused, match="cannot be part of a Job's name"):
            job_name("t", odd)


def test_a_job_tells_the_message_it_came_from() -> None:
    """Body, attributes (binary ones too), id and queue are read back as they were."""
    attributes = {
        "kind": {"DataType": "String", "StringValue": "ä"},
        "raw": {"DataType": "Binary", "BinaryValue": b"\0\xff"},
    }
    sent = message("body ünd mehr", **attributes)
    job = job_manifest(template("x"), sent)
    job["metadata"]["uid"] = "u"

    facts = launched_job(job)

    assert facts is not None
    assert (facts.body, facts.message_id, facts.queue_url) == (sent.body, ID, QUEUE)
    assert sendable_attributes(facts.message_attributes) == attributes
    check(job)


def test_a_long_body_goes_elsewhere() -> None:
    """More than 200 KiB of body and attributes is stored, and the Job says where; up to there it is annotated."""
    fits, beyond = message("x" * (MAX_ANNOTATED_BYTES - 2)), message("ü" * (MAX_ANNOTATED_BYTES // 2))
    assert (too_long(fits), too_long(beyond)) == (False, True)
    check(job_manifest(template("x"), fits))

    job = job_manifest(template("x"), beyond, task_url="s3://b/k")

    assert "task" not in job["metadata"]["annotations"]
    assert job["metadata"]["annotations"]["bucket-brigade/task-url"] == "s3://b/k"
    assert json.loads(stored_task(beyond)) == {"body": beyond.body, "message_attributes": {}}


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ([], "running"),
        ([("Suspended", "True")], "running"),
        ([("FailureTarget", "True")], "running"),
        ([("Complete", "False")], "running"),
        ([("SuccessCriteriaMet", "True"), ("Complete", "True")], "completed"),
        ([("FailureTarget", "True"), ("Failed", "True")], "failed"),
    ],
)
def test_the_status_is_that_of_the_last_condition(conditions: list[tuple[str, str]], status: str) -> None:
    """A Job has ended when Kubernetes says Complete or Failed, and not before."""
    job = job_manifest(template("x"), message("b"))
    job["metadata"]["uid"] = "u"
    job["status"] = {
        "conditions": [
            {"type": kind, "status": value, "lastTransitionTime": "2025-11-28T14:30:00Z"} for kind, value in conditions
        ]
    }
    facts = launched_job(job)
    assert facts is not None and facts.status == status
    assert facts.ended_at == (None if status == "running" else datetime(2025, 11, 28, 14, 30, tzinfo=UTC))


def test_the_packaged_template_is_explained_where_it_stands() -> None:
    """The default template is YAML that people read: it parses, and says what {{name}} is."""
    text = DEFAULT_TEMPLATE.read_text()
    assert "{{name|default}}" in text
    assert yaml.safe_load(text)["metadata"]["name"] == "task"
