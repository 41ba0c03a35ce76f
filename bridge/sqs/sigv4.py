"""AWS's Signature Version 4 for the calls of one SQS client, in a twelfth of botocore's time.

botocore builds a request object, reads its URL and sorts its headers for every signature: 0.2 ms of Python, which is
more than all else that a call to SQS costs here. What does not change from call to call is prepared once, by botocore
itself; the rest is two hashes. ``tests/contract/test_sigv4.py`` compares the signatures.
Source: "Create a signed AWS API request", AWS IAM user guide.
"""

from __future__ import annotations

import hmac
import time
from hashlib import sha256
from typing import Protocol

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

_ALGORITHM = "AWS4-HMAC-SHA256"


class Keys(Protocol):
    """What botocore's frozen credentials have: texts, the token may be None."""

    access_key: str
    secret_key: str
    token: str | None


class Signer:
    """Signs POST requests of SQS's JSON protocol to one URL. It may be used by many threads."""

    def __init__(self, url: str, region: str) -> None:
        """``url`` is where the requests go, without a query; ``region`` the one they are signed for."""
        reference = SigV4Auth(ReadOnlyCredentials("", "", None), "sqs", region)
        request = AWSRequest("POST", url)
        self._host = reference.headers_to_sign(request)["host"]
        self._first_lines = "\n".join(reference.canonical_request(request).split("\n")[:3])
        self._region = region
        #: The key of a day is derived from the secret in four steps; kept with what it was derived from.
        self._derived: tuple[str, str, bytes] = ("", "", b"")

    def headers(self, keys: Keys, target: str, body: bytes, *, now: float | None = None) -> list[str]:
        """Return the header lines of a call of ``target`` (``AmazonSQS.ReceiveMessage``), its signature among them.

        ``now`` is the time of day as an epoch, in seconds; the clock's own if it is not given.
        """
        timestamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        day = timestamp[:8]
        lines = ["Content-Type: application/x-amz-json-1.0", f"X-Amz-Date: {timestamp}"]
        # By name, as a signature wants them.
        signed = f"content-type:application/x-amz-json-1.0\nhost:{self._host}\nx-amz-date:{timestamp}\n"
        names = "content-type;host;x-amz-date;x-amz-target;x-amzn-query-mode"
        if keys.token:
            lines.append(f"X-Amz-Security-Token: {keys.token}")
            signed += f"x-amz-security-token:{' '.join(keys.token.split())}\n"
            names = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target;x-amzn-query-mode"
        # Without its query mode SQS would not say its old error codes, which boto3 shows.
        lines += [f"X-Amz-Target: {target}", "x-amzn-query-mode: true"]
        signed += f"x-amz-target:{target}\nx-amzn-query-mode:true\n"
        canonical = f"{self._first_lines}\n{signed}\n{names}\n{sha256(body).hexdigest()}"
        scope = f"{day}/{self._region}/sqs/aws4_request"
        to_sign = f"{_ALGORITHM}\n{timestamp}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(self._key(keys.secret_key, day), to_sign.encode(), "sha256").hex()
        lines.append(
            f"Authorization: {_ALGORITHM} Credential={keys.access_key}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        )
        return lines

    def _key(self, secret: str, day: str) -> bytes:
        derived_from, of_day, key = self._derived
        if derived_from != secret or of_day != day:
            key = f"AWS4{secret}".encode()
            for part in (day, self._region, "sqs", "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._derived = secret, day, key
        return key
