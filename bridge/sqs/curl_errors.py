"""Turn the failure of a libcurl call into the exception that botocore would raise for it.

Receivers, batchers and logs distinguish failures by class and code, so a failure must look the same whichever client
made the call. botocore's own parser reads SQS's error answers. This module translates libcurl's network errors.
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
    # The answer is not HTTP. The second code also covers HTTP; libcurl later gave it a name without FTP.
    *(pycurl.E_UNSUPPORTED_PROTOCOL, pycurl.E_FTP_WEIRD_SERVER_REPLY),
}
_TLS = {pycurl.E_SSL_CONNECT_ERROR, pycurl.E_PEER_FAILED_VERIFICATION, pycurl.E_SSL_CACERT_BADFILE}


def network_error(curl: pycurl.Curl, error: pycurl.error, *, url: str, proxy: str) -> BotoCoreError:
    """Return botocore's exception for a failed transfer to ``url``; ``proxy`` is empty without a proxy."""
    code, text = error.args[0], str(error.args[1])
    timed_out = code == pycurl.E_OPERATION_TIMEDOUT
    # A new connection, or one that already existed. libcurl's times do not tell: some versions set all of them whenever
    # a transfer ends, however early.
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
    """Return an error answer in botocore's form; ``head`` holds its status line and headers, ``data`` its body."""
    headers = {}
    for line in head:
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    response = {"status_code": status, "headers": headers, "body": data}
    no_shape: Any = None  # an error answer has no output shape
    try:
        parsed: dict[str, Any] = JSONParser().parse(response, no_shape)
    except Exception:  # noqa: BLE001 - not from SQS: a proxy's page in another encoding, JSON of another form
        text = http.client.responses.get(status, "")
        parsed = {"Error": {"Code": str(status), "Message": text}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return parsed
