"""What a call sent by libcurl failed with, as the exception that botocore would raise for it.

The receivers, lanes and logs tell failures apart by class and code, and must not see who made a call. What SQS answered
is read by botocore's own parser; what libcurl says of the network is translated here.
Sources: "libcurl error codes", curl.se; botocore.httpsession.URLLib3Session.send.
"""

from __future__ import annotations

import http.client
from collections.abc import Sequence
from typing import Any

import pycurl
from botocore.exceptions import (
    BotoCoreError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import mask_proxy_url
from botocore.parsers import JSONParser

_UNREACHABLE = {pycurl.E_COULDNT_RESOLVE_HOST, pycurl.E_COULDNT_CONNECT}
_PROXY_UNREACHABLE = {pycurl.E_COULDNT_RESOLVE_PROXY, pycurl.E_COULDNT_CONNECT}
_CLOSED = {
    *(pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR, pycurl.E_PARTIAL_FILE),
    # What came is no HTTP. The second is of HTTP too; libcurl gave it a name without FTP later.
    *(pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_FTP_WEIRD_SERVER_REPLY),
}
_TLS = {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE}


def network_error(curl: pycurl.Curl, error: pycurl.error, *, url: str, proxy: str) -> BotoCoreError:
    """Return botocore's exception for a transfer to ``url`` that failed; ``proxy`` is empty where there is none."""
    code, text = error.args[0], str(error.args[1])
    timed_out = code == pycurl.E_OPERATION_TIMEDOUT
    # Made, or there before. Not libcurl's times: some of its versions set them all when a transfer ends, ever so early.
    connected = curl.getinfo(pycurl.NUM_CONNECTS) > 0 or curl.getinfo(pycurl.REQUEST_SIZE) > 0
    tunnel_refused = curl.getinfo(pycurl.HTTP_CONNECTCODE) >= 300
    if proxy and (tunnel_refused or code in _PROXY_UNREACHABLE or (timed_out and not connected)):
        return ProxyConnectionError(proxy_url=mask_proxy_url(proxy), error=text)
    if timed_out:
        kind: Any = ReadTimeoutError if connected else ConnectTimeoutError
    elif code in _UNREACHABLE:
        kind = EndpointConnectionError
    elif code in _CLOSED:
        kind = ConnectionClosedError
    else:
        kind = SSLError if code in _TLS else HTTPClientError
    failure: BotoCoreError = kind(endpoint_url=url, error=text)
    return failure


def refusal(status: int, head: Sequence[bytes], data: bytes) -> dict[str, Any]:
    """Return an error answer (its status line and headers are ``head``) in the form that botocore gives it."""
    headers = {}
    for line in head:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    response = {"status_code": status, "headers": headers, "body": data}
    no_shape: Any = None  # that of an answer, which an error answer has not
    try:
        parsed: dict[str, Any] = JSONParser().parse(response, no_shape)
    except Exception:  # noqa: BLE001 - no answer of SQS's: a proxy's page in another encoding, JSON of another form
        text = http.client.responses.get(status, "")
        parsed = {"Error": {"Code": str(status), "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return parsed
