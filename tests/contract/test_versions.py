"""Which versions the contract was checked with."""

from __future__ import annotations

from importlib.metadata import requires, version

import pytest

CHECKED = {"celery": "5.7.0", "kombu": "5.7.0", "billiard": "4.3.2", "vine": "5.1.0"}

ADVICE = (
    "{name} {installed} is installed, and the contract was checked with {checked}. To move on: run tests/contract with "
    "the new version, read its changelog for everything in the table of docs/decisions/2026-11-21-seams.md, run the "
    "end-to-end tests on moto and ElasticMQ, then change the pin in pyproject.toml, requirements.lock and this test."
)


@pytest.mark.parametrize("name", CHECKED)
def test_the_installed_version_is_the_one_that_was_checked(name):
    """A new version of celery, kombu, billiard or vine fails here first, with what to do about it."""
    installed = version(name)
    assert installed == CHECKED[name], ADVICE.format(name=name, installed=installed, checked=CHECKED[name])


@pytest.mark.parametrize("name", ["celery", "kombu"])
def test_the_package_pins_the_version_that_was_checked(name):
    """What pip installs beside the bridge is what these tests ran with."""
    needed = [r.split(";")[0].strip() for r in requires("bucket-brigade") or []]
    pins = [r for r in needed if r.split("==")[0].split("[")[0] == name]
    assert pins, f"bucket-brigade does not pin {name}"
    assert all(pin.endswith(f"=={CHECKED[name]}") for pin in pins)
