"""The region of the clients: the rule itself, and where the loaders look."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bridge.errors import SettingsError
from bridge.settings.loading import load_task_queue_settings, load_worker_settings, region_for
from bridge.settings.region import is_aws_host, is_region_name, region_of_queue_url
from bridge.settings.task_queue import task_queue_settings
from tests import REPOSITORY

QUEUE = "https://sqs.eu-west-1.amazonaws.com/123456789012/uploads"
ENOUGH = {"SQS_QUEUE_URL": QUEUE, "BRIDGE_TASK_MODULES": "my_files"}


def test_order() -> None:
    """AWS_REGION comes before AWS_DEFAULT_REGION, that before the profile's, that before the queue URL's."""
    both = {"AWS_REGION": "r-one-1", "AWS_DEFAULT_REGION": "r-two-2"}
    assert region_for(QUEUE, both, "r-three-3") == "r-one-1"
    assert region_for(QUEUE, {**both, "AWS_REGION": ""}, "r-three-3") == "r-two-2"
    assert region_for(QUEUE, {}, "r-three-3") == "r-three-3"
    assert region_for(QUEUE, {}, None) == "eu-west-1"
    assert region_for(None, {}, None) is None
    assert region_for("http://localhost:9324/0/q", {}, None) is None


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("sqs.eu-west-1.amazonaws.com", "eu-west-1"),
        ("SQS.EU-WEST-1.AMAZONAWS.COM:443", "eu-west-1"),
        ("sqs.us-gov-west-1.amazonaws.com", "us-gov-west-1"),
        ("sqs-fips.us-east-2.amazonaws.com", "us-east-2"),
        ("sqs.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("sqs.eusc-de-east-1.amazonaws.eu", "eusc-de-east-1"),
        ("sqs.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
        ("sqs.eu-west-1.api.aws", "eu-west-1"),
        ("sqs-fips.us-east-1.api.aws", "us-east-1"),
        ("sqs.cn-north-1.api.amazonwebservices.com.cn", "cn-north-1"),
        ("vpce-0a1b-2c3d.sqs.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("vpce-0a1b-2c3d-eu-west-1a.sqs.eu-west-1.vpce.amazonaws.com", "eu-west-1"),
        ("eu-west-1.queue.amazonaws.com", "eu-west-1"),
        ("cn-north-1.queue.amazonaws.com.cn", "cn-north-1"),
        ("queue.amazonaws.com", "us-east-1"),
        ("sqs.amazonaws.com", None),
        ("s3.eu-west-1.amazonaws.com", None),
        ("sqs.nowhere.amazonaws.com", None),
    ],
)
def test_region_in_a_host_of_aws(host: str, region: str | None) -> None:
    """Every form that AWS gives a queue's host names its region; a host without one names none."""
    assert region_of_queue_url(f"https://{host}/123456789012/q") == region
    assert is_aws_host(f"https://{host}/123456789012/q")


@pytest.mark.parametrize(
    "host",
    [
        "localhost:9324",
        "elasticmq",
        "sqs.eu-west-1.localhost.localstack.cloud:4566",
        "sqs.eu-west-1.notamazonaws.com",
        "[x",
    ],
)
def test_other_hosts(host: str) -> None:
    """A host outside AWS names no region, whatever it looks like."""
    assert region_of_queue_url(f"http://{host}/0/q") is None
    assert not is_aws_host(f"http://{host}/0/q")


def test_region_names() -> None:
    """A region must be a name that botocore accepts for a client."""
    from botocore.exceptions import InvalidRegionError
    from botocore.utils import validate_region_name

    assert not is_region_name("eu-west-1\n")  # which botocore lets through
    for name in ("eu-west-1", "local", "a", "1a", "-a", "a-", "12", "eu west", "é", "a" * 63, "a" * 64, "a.b", "a_b"):
        try:
            validate_region_name(name)
        except InvalidRegionError:
            assert not is_region_name(name), name
        else:
            assert is_region_name(name), name


def test_region_of_the_profile(tmp_path: Path) -> None:
    """Without a region in the environment the profile's counts, before the queue's; a missing profile is a fault."""
    config = tmp_path / "config"
    config.write_text("[default]\nregion = eu-north-1\n[profile far]\nregion = ap-south-1\n")
    base = {name: value for name, value in ENOUGH.items() if name != "AWS_REGION"}
    base["AWS_CONFIG_FILE"] = str(config)
    assert load_worker_settings(base).region == "eu-north-1"
    assert load_worker_settings({**base, "AWS_PROFILE": "far"}).region == "ap-south-1"
    assert load_worker_settings({**base, "AWS_PROFILE": "far", "AWS_REGION": "us-west-2"}).region == "us-west-2"
    with pytest.raises(SettingsError, match=r"^the AWS configuration cannot be read: .*\(none\)"):
        load_worker_settings({**base, "AWS_PROFILE": "none"})
    config.write_text("[default\n")
    with pytest.raises(SettingsError, match=r"^the AWS configuration cannot be read: "):
        load_worker_settings(base)


def test_region_without_any_name() -> None:
    """The queue's host names the region; a host outside AWS gets us-east-1; an AWS host without a region is a fault."""
    base = {**ENOUGH, "AWS_REGION": "", "AWS_CONFIG_FILE": "/nonexistent"}
    assert load_worker_settings(base).region == "eu-west-1"
    for host in ("localhost:9324", "127.0.0.1:5000", "elasticmq:9324"):
        assert load_worker_settings({**base, "SQS_QUEUE_URL": f"http://{host}/0/q"}).region == "us-east-1"
        assert load_task_queue_settings({**base, "SQS_TASK_QUEUE_URL": f"http://{host}/0/q"}).region == "us-east-1"
    with pytest.raises(SettingsError, match=r"names no region: set AWS_REGION$"):
        load_worker_settings({**base, "SQS_QUEUE_URL": "https://sqs.amazonaws.com/1/q"})


WITHOUT_BOTOCORE = """
import os, sys, types
import pydantic_settings
class Watched(dict):
    def __getitem__(self, name): self.see(name); return super().__getitem__(name)
    def __contains__(self, name): self.see(name); return super().__contains__(name)
    def get(self, name, default=None): self.see(name); return super().get(name, default)
    def see(self, name): assert not name.startswith(("BRIDGE", "SQS", "AWS", "CELERY")), name
    def see_all(self): raise AssertionError("the whole environment was read")
    __iter__ = keys = values = items = copy = see_all
package = types.ModuleType("bridge")  # in place of bridge/__init__.py: this is about the settings alone
package.__path__ = [sys.argv[1]]
sys.modules["bridge"] = package
real, os.environ = os.environ, Watched(os.environ)
import bridge.settings.loading
os.environ = real
enough = {"SQS_QUEUE_URL": "http://h/q", "BRIDGE_TASK_MODULES": "m", "AWS_REGION": "eu-west-1"}
bridge.settings.loading.load_worker_settings(enough)
assert "botocore" not in sys.modules, "a third of a second lost"
"""


def test_importing_reads_nothing() -> None:
    """Importing the settings reads no variable, and with a region in the environment no AWS library is imported."""
    command = [sys.executable, "-c", WITHOUT_BOTOCORE, str(REPOSITORY / "bridge")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_another_file_of_profiles_is_read_anew(monkeypatch, tmp_path):
    """A process that sends takes the region of the file that AWS_CONFIG_FILE names now, not of one named before."""
    monkeypatch.setenv("SQS_TASK_QUEUE_URL", "https://queues.example/123456789012/tasks")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", "https://queues.example")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    regions = []
    for region in ("eu-west-1", "ap-south-1"):
        file = tmp_path / region
        file.write_text(f"[default]\nregion = {region}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(file))
        regions.append(task_queue_settings().region)

    assert regions == ["eu-west-1", "ap-south-1"]
