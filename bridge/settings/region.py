"""Which AWS region the clients use. Pure: the caller reads the environment and the profile.

Every client gets its region explicitly. boto3 itself does not read ``AWS_REGION``, and it sends a request to the
endpoint of its client's region, whatever host the queue URL names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

EMULATOR_REGION = "us-east-1"
"""The region for a queue on a host outside AWS when nothing names one: signing for an emulator needs any region."""

# The DNS suffixes of all partitions, with and without IPv6 (partitions.json of botocore 1.44).
_AWS_SUFFIXES = (
    "amazonaws.com",
    "amazonaws.com.cn",
    "amazonaws.eu",
    "api.aws",
    "api.amazonwebservices.com.cn",
    "api.amazonwebservices.eu",
    "c2s.ic.gov",
    "sc2s.sgov.gov",
    "cloud.adc-e.uk",
    "csp.hci.ic.gov",
    "api.aws.ic.gov",
    "api.aws.scloud",
    "api.cloud-aws.adc-e.uk",
    "api.aws.hci.ic.gov",
)


def region_for(queue_url: str | None, environ: Mapping[str, str], profile_region: str | None) -> str | None:
    """Return the region: AWS_REGION, else AWS_DEFAULT_REGION, else the profile's, else the one in the queue URL's host.

    ``queue_url`` is the URL of the queue in use, or None. ``profile_region`` is the ``region`` of the AWS profile in
    use, or None. An empty value counts as unset. Returns None when nothing names a region. Never raises.
    """
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile_region
    return named or (region_of_queue_url(queue_url) if queue_url else None)


def region_of_queue_url(url: str) -> str | None:
    """Return the region in the host of a queue URL; None when it names none or is not an SQS host of AWS.

    Hosts: https://docs.aws.amazon.com/general/latest/gr/sqs-service.html (regional, FIPS, dual-stack and the legacy
    ``<region>.queue.amazonaws.com``, where ``queue.amazonaws.com`` is us-east-1). A VPC endpoint has its own name in
    front and ``vpce`` after the region.
    """
    labels = _labels_before_suffix(url)
    if labels is None:
        return None
    if labels == ["queue"]:
        return "us-east-1"
    if labels[-1:] == ["vpce"]:
        labels.pop()
    if len(labels) >= 2 and labels[-2] in ("sqs", "sqs-fips"):
        return _region_or_none(labels[-1])
    if len(labels) == 2 and labels[1] == "queue":
        return _region_or_none(labels[0])
    return None


def is_aws_host(url: str) -> bool:
    """Return whether the URL's host belongs to AWS."""
    return _labels_before_suffix(url) is not None


def is_region_name(name: str) -> bool:
    """Return whether botocore accepts ``name`` as a region: it must be a valid host label with more than digits."""
    return re.fullmatch(r"(?!\d+$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", name, re.ASCII) is not None


def _labels_before_suffix(url: str) -> list[str] | None:
    try:
        host = (urlsplit(url).hostname or "").removesuffix(".")
    except ValueError:
        return None
    for suffix in _AWS_SUFFIXES:
        if host.endswith("." + suffix):
            return host.removesuffix("." + suffix).split(".")
    return None


def _region_or_none(label: str) -> str | None:
    return label if re.fullmatch(r"[a-z]+(?:-[a-z]+)+-[0-9]+", label) else None
