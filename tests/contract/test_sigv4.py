"""Our signatures are botocore's: the same headers for the same request, whatever keys, endpoint, body and time."""

from __future__ import annotations

import datetime
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from hypothesis import given
from hypothesis import strategies as st

from bridge.sqs.sigv4 import Signer

#: What botocore accepts in a key: it is sent in a header.
words = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
keys = st.builds(ReadOnlyCredentials, words, st.text(min_size=1, max_size=60), st.none() | words)
#: Times to the millisecond: a datetime rounds what is finer, and may end in the next second.
milliseconds = st.integers(min_value=0, max_value=4_000_000_000_000).map(lambda whole: whole / 1000)
URLS = [
    "https://sqs.eu-west-1.amazonaws.com/",
    "https://sqs.eu-west-1.amazonaws.com:443/",
    "https://sqs-fips.us-east-1.api.aws/",
    "http://127.0.0.1:9324",
    "http://localhost:4566/sqs/a b/../%7Ec/",
    "http://[::1]:9324/",
    "HTTP://LOCALHOST:80",
]


def botocore_headers(url: str, region: str, frozen: ReadOnlyCredentials, target: str, body: bytes, now: float) -> set:
    """The header lines of botocore's signer for this call at this time."""
    request = AWSRequest(
        "POST",
        url,
        headers={
            "Content-Type": "application/x-amz-json-1.0",
            "X-Amz-Target": target,
            "x-amzn-query-mode": "true",
        },
        data=body,
    )
    moment = datetime.datetime.fromtimestamp(now, tz=datetime.UTC)
    with mock.patch("botocore.auth.get_current_datetime", return_value=moment):
        SigV4Auth(frozen, "sqs", region).add_auth(request)
    return {f"{name}: {value}" for name, value in request.headers.items()}


@given(
    url=st.sampled_from(URLS),
    region=st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1"]),
    frozen=keys,
    target=st.sampled_from(["AmazonSQS.ReceiveMessage", "AmazonSQS.DeleteMessageBatch"]),
    body=st.binary(max_size=300),
    now=milliseconds,
)
def test_the_headers_are_those_of_botocore(url, region, frozen, target, body, now):
    """Every header of a call is the one that botocore would send."""
    ours = Signer(url, region).headers(frozen, target, body, now=now)
    assert len(ours) == len(set(ours))
    assert set(ours) == botocore_headers(url, region, frozen, target, body, now)


@given(calls=st.lists(st.tuples(keys, st.integers(min_value=0, max_value=4)), min_size=2, max_size=8))
def test_a_derived_key_is_not_used_for_another_day_or_secret(calls):
    """One signer serves calls before and after midnight, and before and after a renewal of the credentials."""
    signer = Signer(URLS[0], "eu-west-1")
    for frozen, day in calls:
        now = 1_800_000_000.0 + day * 43_200
        ours = signer.headers(frozen, "AmazonSQS.ReceiveMessage", b"{}", now=now)
        assert set(ours) == botocore_headers(URLS[0], "eu-west-1", frozen, "AmazonSQS.ReceiveMessage", b"{}", now)


@pytest.mark.parametrize("token", ["", None])
def test_an_empty_token_is_no_header(token):
    """Keys without a session token send none."""
    headers = Signer(URLS[0], "eu-west-1").headers(ReadOnlyCredentials("AK", "SK", token), "AmazonSQS.X", b"{}")
    assert not [line for line in headers if "Token" in line]


def test_the_time_is_now_if_none_is_given():
    """The clock's time is signed, in UTC, to the second."""
    before = datetime.datetime.now(tz=datetime.UTC).replace(microsecond=0)
    [date] = [
        line.split(": ")[1]
        for line in Signer(URLS[0], "eu-west-1").headers(ReadOnlyCredentials("AK", "SK", None), "AmazonSQS.X", b"")
        if line.startswith("X-Amz-Date")
    ]
    told = datetime.datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=datetime.UTC)
    assert before <= told <= datetime.datetime.now(tz=datetime.UTC)
