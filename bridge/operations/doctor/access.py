"""The doctor's verdicts on who we are and what we may do: answers of AWS in, findings out. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.aws_errors import ACCESS_DENIED, EXPIRED_CREDENTIALS, HEAD_DENIED, INVALID_CREDENTIALS
from bridge.operations.doctor.finding import Finding


@dataclass(frozen=True, slots=True)
class Probe:
    """A call that can do nothing, and its answer: ``code`` is SQS's or S3's error code, None for a success.

    ``harmless`` are the codes with which a call is refused for its arguments, which comes after the permission.
    """

    action: str
    subject: str
    code: str | None
    harmless: frozenset[str] = frozenset()
    resource: str = ""


def check_permission(probe: Probe) -> Finding:
    """Say whether the action is allowed, as far as its answer shows."""
    code = (probe.code or "").rsplit(".", 1)[-1]
    if not code or code in probe.harmless:
        return Finding("ok", "permission", probe.subject, f"{probe.action} is not denied")
    if code in ACCESS_DENIED | HEAD_DENIED:
        remedy = f"allow {probe.action} on {probe.resource or probe.subject}"
        return Finding("error", "permission", probe.subject, f"{probe.action} is denied", remedy)
    if code in INVALID_CREDENTIALS | EXPIRED_CREDENTIALS:
        return Finding(
            "error", "permission", probe.subject, f"AWS refuses the credentials: {code}", "other credentials"
        )
    return Finding("warning", "permission", probe.subject, f"{probe.action}: no clear answer ({code})")


def check_credentials(method: str | None, identity: str | None, fault: str | None) -> Finding:
    """Where the credentials come from; ``identity`` is the caller's ARN, None where it was not asked for."""
    if fault is not None:
        return Finding("error", "credentials", "AWS", fault, "give the pod a role, or set AWS_PROFILE")
    if method is None:
        text = "the SDK finds none: neither in the environment, nor in a profile, nor from the pod or the machine"
        return Finding("error", "credentials", "AWS", text, "give the pod a role, or set AWS_PROFILE")
    return Finding("ok", "credentials", "AWS", f"from {method}{f', as {identity}' if identity else ''}")


def check_clock(skew_seconds: float | None) -> Finding:
    """AWS refuses requests that are signed more than five minutes off (SigV4)."""
    if skew_seconds is None:
        return Finding("ok", "clock", "here", "the server does not say")
    if abs(skew_seconds) >= 240:
        text = f"this machine's clock is {skew_seconds:+.0f} s off"
        return Finding("error", "clock", "here", text, "AWS refuses requests from 300 s on: run NTP")
    if abs(skew_seconds) >= 60:
        return Finding("warning", "clock", "here", f"this machine's clock is {skew_seconds:+.0f} s off", "run NTP")
    return Finding("ok", "clock", "here", "within a minute of AWS's")
