"""What holds for every command of ``brigade``: help with examples that can be typed, and a wrong option is one line."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from bridge import cli
from bridge.cli import _brigade

#: Commands without --json, and why.
WITHOUT_JSON = {
    "demo": "a show for people",
    "dlq export": "JSON lines and nothing else",
    "exporter": "a server; its log is JSON with BRIDGE_LOG_FORMAT",
    "run-once": "a worker; its log is JSON with BRIDGE_LOG_FORMAT",
}


def leaves(group: click.Group = _brigade, names: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its whole name."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from leaves(command, (*names, name))
        else:
            yield " ".join((*names, name)), command


COMMANDS = dict(leaves())
each = pytest.mark.parametrize("name", COMMANDS)


@each
def test_help_has_examples_that_can_be_typed(brigade, name):
    """--help ends with examples of this very command, with options that it has; no mark of click's is left in it."""
    shown = brigade(*name.split(), "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "\\b" not in shown.out
    assert "\b" not in shown.out
    lines = [line.strip() for line in shown.out.partition("Examples:\n")[2].splitlines() if line.strip()]
    known = {option for parameter in COMMANDS[name].params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert any(line.startswith(f"brigade {name}") for line in lines)
    for line in lines:
        typed = line.partition(" | ")[0].partition(" > ")[0]
        assert {word for word in shlex.split(typed, comments=True) if word.startswith("--")} <= known, line


@each
def test_an_unknown_option_is_one_line(brigade, name):
    """No command takes an option that it does not know: one line on standard error, exit code 2."""
    refused = brigade(*name.split(), "--no-such-option")
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("brigade: No such option")
    assert refused.err.count("\n") == 1


@each
def test_output_for_machines(name):
    """Every command has --json but those whose output has no other form than it has."""
    has_json = any("--json" in parameter.opts for parameter in COMMANDS[name].params)
    assert has_json != (name in WITHOUT_JSON)


@pytest.mark.parametrize(
    "line",
    [
        "run-once --idle-timeout nan",
        "backfill s3://uploads --rate nan",
        "backfill s3://uploads --rate inf",
        "reconcile s3://uploads --task t --enqueue --rate nan",
        "send x --rate nan",
    ],
)
def test_what_is_no_number_is_refused(brigade, line):
    """A nan, which is neither below nor above any bound, is told like any number out of range."""
    refused = brigade(*line.split())
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.count("\n") == 1


def test_types_of_options_suit_the_oldest_click():
    """Click has made ParamType generic with 8.5, and pyproject.toml allows 8.3: a subscript would end every command."""
    sources = Path(cli.__file__).parent.glob("*.py")
    assert [source.name for source in sources if "ParamType[" in source.read_text()] == []
