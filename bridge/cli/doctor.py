"""``brigade doctor``: the options, and the findings as a table; what is looked at is in bridge/operations/doctor."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import click

from bridge.cli.exit_codes import errors_reported

if TYPE_CHECKING:
    from bridge.operations.doctor.finding import Finding

_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}
_EXAMPLES = """
\b
Examples:
  brigade doctor --bucket uploads
  brigade doctor --bucket uploads --write-test --quiet
  brigade doctor --json | jq '.findings[] | select(.level != "ok")'
"""


@click.command("doctor", epilog=_EXAMPLES)
@click.option("--bucket", "buckets", multiple=True, metavar="NAME", help="A bucket to look at; several.")
@click.option("--write-test", is_flag=True, help="Put and delete an object under each of our output prefixes.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(buckets: tuple[str, ...], write_test: bool, quiet: bool, as_json: bool) -> int:
    """Look at what is really there: queues, dead letters, buckets, permissions, tasks, store and bus.

    Run it with the worker's own environment and role. Nothing is changed, received or sent, except by --write-test.
    Without --bucket the buckets of BRIDGE_ALLOWED_BUCKETS are looked at, where they are no globs. Exit code 0: no
    errors (there may be warnings); 1: errors.
    """
    # Imported here because the SDK and Celery take most of a second, which --help should not.
    from bridge.errors import SettingsError
    from bridge.operations.doctor.finding import Finding
    from bridge.operations.doctor.run import examine
    from bridge.settings.loading import load_operator_settings

    try:
        settings = load_operator_settings()
    except SettingsError as error:
        findings = [Finding("error", "settings", "environment", str(error), "docs/reference/settings.md")]
    else:
        with errors_reported():
            findings = [
                Finding("ok", "settings", "environment", "sound"),
                *examine(settings, buckets, write_test=write_test),
            ]
    if as_json:
        click.echo(json.dumps({"counts": _counts(findings), "findings": [f.to_dict() for f in findings]}, indent=1))
    else:
        _print(findings, quiet=quiet)
    return 1 if any(f.level == "error" for f in findings) else 0


def _print(findings: list[Finding], *, quiet: bool) -> None:
    shown = [f for f in findings if not quiet or f.level != "ok"]
    check_width = max((len(f.check) for f in shown), default=0)
    subject_width = min(40, max((len(f.subject) for f in shown), default=0))
    for finding in shown:
        level = click.style(f"{finding.level:<7}", fg=_COLOURS[finding.level])
        click.echo(f"{level}  {finding.check:<{check_width}}  {finding.subject:<{subject_width}}  {finding.text}")
        if finding.remedy and finding.level != "ok":
            click.echo(f"{'':7}  {'':{check_width}}  → {finding.remedy}")
    counts = _counts(findings)
    click.echo(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")


def _counts(findings: list[Finding]) -> dict[str, int]:
    counted = Counter(f.level for f in findings)
    return {"ok": counted["ok"], "warning": counted["warning"], "error": counted["error"]}
