"""What bridge.sqs.fast_client leans on in botocore: its credentials and errors, and where it would send a call.

Its signer is compared in ``test_sigv4``.
"""

from __future__ import annotations

import json

import boto3
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.config import Config
from botocore.httpsession import ProxyConfiguration, mask_proxy_url, where
from botocore.parsers import JSONParser

from bridge.sqs.fast_client import destination

QUEUE_URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
KEYS = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "a secret"}


def test_a_session_has_one_object_of_credentials():
    """``get_credentials`` gives the session's and its clients' own object: a renewal is everybody's."""
    session = boto3.session.Session(**KEYS, region_name="eu-west-1")
    client = session.client("sqs")
    assert session.get_credentials() is session.get_credentials() is client._request_signer._credentials
    assert session.get_credentials().get_frozen_credentials().access_key == "AKIDEXAMPLE"


def test_a_session_shows_its_bundle(monkeypatch, tmp_path):
    """The bundle of the environment or the profile is a configuration variable of botocore's session."""
    monkeypatch.setenv("AWS_CA_BUNDLE", "/a/bundle.pem")
    assert boto3.session.Session()._session.get_config_variable("ca_bundle") == "/a/bundle.pem"
    monkeypatch.delenv("AWS_CA_BUNDLE")
    (tmp_path / "config").write_text("[profile company]\nca_bundle = /another.pem\n", encoding="utf-8")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    session = boto3.session.Session(profile_name="company")
    assert session._session.get_config_variable("ca_bundle") == "/another.pem"
    assert where().endswith(".pem")


def sent_by_boto3(client) -> tuple[str, str, dict[str, str], bytes]:
    """The URL, the signed region, the headers and the body of a receive, caught before it leaves."""
    caught = []

    def catch(request, **_):
        caught.append(request)
        response = AWSResponse(request.url, 200, {}, None)
        response._content = b"{}"
        return response

    client.meta.events.register("before-send.sqs.ReceiveMessage", catch)
    client.receive_message(QueueUrl=QUEUE_URL)
    [request] = caught
    headers = {
        name.lower(): value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()
    }
    return request.url, headers["authorization"].split("/")[2], headers, request.body


PARTITIONS = ["us-east-1", "eu-west-1", "us-gov-west-1", "cn-north-1", "us-iso-east-1", "eusc-de-east-1"]


@pytest.mark.parametrize("dualstack", [False, True], ids=["ipv4", "dualstack"])
@pytest.mark.parametrize("fips", [False, True], ids=["plain", "fips"])
@pytest.mark.parametrize("region", [*PARTITIONS, "xx-unknown-9"])
def test_calls_go_where_boto3_sends_its_own(region, fips, dualstack):
    """URL and region of ``destination`` are those of boto3, in every partition and for each kind of endpoint.

    ``client.meta.endpoint_url`` is not: for a FIPS endpoint in us-iso-east-1 it names the one that is not FIPS.
    """
    config = Config(use_fips_endpoint=fips, use_dualstack_endpoint=dualstack)
    client = boto3.session.Session(**KEYS).client("sqs", region_name=region, config=config)
    url, signed_region, _, _ = sent_by_boto3(client)
    assert destination(client)[:2] == (url, signed_region)
    assert url.startswith("https://")
    assert ("fips" in url) == fips or region.startswith("us-gov-")  # where all of them are


@pytest.mark.parametrize(
    "custom",
    [
        "http://127.0.0.1:9324",
        "http://localhost:4566/sqs",
        "https://vpce-1a2b-3c4d.sqs.eu-west-1.vpce.amazonaws.com/",
        "HTTP://LOCALHOST:80",
    ],
)
def test_calls_go_to_a_custom_endpoint(monkeypatch, custom):
    """The endpoint of the environment is used with its path, whatever host the queue's URL names."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", custom)
    client = boto3.session.Session(**KEYS, region_name="eu-west-1").client("sqs")
    url, signed_region, _, _ = sent_by_boto3(client)
    assert destination(client)[:2] == (url, signed_region)
    assert url.lower().startswith(custom.lower().rstrip("/"))


def test_the_look_at_the_endpoint_leaves_no_trace():
    """``before-call`` can end a call before it is signed or sent; afterwards the client calls as ever."""
    client = boto3.session.Session(region_name="eu-west-1").client("sqs")  # without credentials
    told = []
    client.meta.events.register("after-call.sqs", lambda **_: told.append("after-call"))
    client.meta.events.register("after-call-error.sqs", lambda **_: told.append("after-call-error"))
    assert destination(client) == destination(client)
    assert told == []


def test_boto3_sends_the_headers_that_we_send():
    """The protocol's headers of a call; should botocore speak another protocol to SQS, this fails first."""
    client = boto3.session.Session(**KEYS, region_name="eu-west-1").client("sqs")
    _, _, headers, body = sent_by_boto3(client)
    assert client.meta.service_model.resolved_protocol == "json"
    assert headers["content-type"] == "application/x-amz-json-1.0"
    assert headers["x-amz-target"] == "AmazonSQS.ReceiveMessage"
    assert headers["x-amzn-query-mode"] == "true"
    assert json.loads(body) == {"QueueUrl": QUEUE_URL}


def test_the_user_agent_names_the_application(monkeypatch):
    """``AWS_SDK_UA_APP_ID``, by which CloudTrail tells applications apart, is in the user agent of a call."""
    monkeypatch.setenv("AWS_SDK_UA_APP_ID", "our-uploads")
    client = boto3.session.Session(**KEYS, region_name="eu-west-1").client("sqs")
    _, _, headers, _ = sent_by_boto3(client)
    assert "app/our-uploads" in headers["user-agent"]
    assert "app/our-uploads" in destination(client).user_agent


def test_the_parser_reads_an_error_without_a_shape():
    """An error answer needs no model: code, message, the code that chooses the class, and the request's id."""
    headers = {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender", "x-amzn-requestid": "an id"}
    body = b'{"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "a text"}'
    parsed = JSONParser().parse({"status_code": 400, "headers": headers, "body": body}, None)
    assert parsed["Error"]["Code"] == "AWS.SimpleQueueService.NonExistentQueue"
    assert parsed["Error"]["QueryErrorCode"] == "QueueDoesNotExist"
    assert parsed["ResponseMetadata"] == {"RequestId": "an id", "HTTPStatusCode": 400, "HTTPHeaders": headers}


def test_a_client_knows_its_exceptions_by_code():
    """``exceptions.from_code`` gives the client's own class, and ClientError for a code without one."""
    exceptions = boto3.session.Session(region_name="eu-west-1").client("sqs").exceptions
    assert exceptions.from_code("QueueDoesNotExist") is exceptions.QueueDoesNotExist
    assert exceptions.from_code("503") is exceptions.from_code(None) is botocore.exceptions.ClientError


def test_a_proxy_is_shown_without_its_password():
    """A proxy's address gets its scheme, and is masked."""
    url = ProxyConfiguration({"https": "somebody:password@proxy:3128"}).proxy_url_for(QUEUE_URL)
    assert url == "http://somebody:password@proxy:3128"
    assert mask_proxy_url(url) == "http://***:***@proxy:3128"
    assert ProxyConfiguration({}).proxy_url_for(QUEUE_URL) is None
