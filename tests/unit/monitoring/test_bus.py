"""Where the bus is: what BRIDGE_MONITOR_URL may be, and that its password is told nobody."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.url import parse_url

from bridge.errors import NoMonitorBus, SettingsError
from bridge.monitoring.bus import bus_address, bus_connection, required_bus
from bridge.settings.loading import load_monitor_settings
from bridge.settings.rules import bus_url_fault


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1",
        "redis://bus:6379/0",
        "redis://:p%40ss@bus.example.com:6380/15",
        "redis://user:pass@[::1]:6379",
        "rediss://user:pass@bus:6379/0?ssl_ca_certs=/etc/ca.pem&ssl_certfile=/c&ssl_keyfile=/k",
    ],
)
def test_sound_urls(url: str) -> None:
    """Redis with and without TLS, password and database is taken."""
    assert bus_url_fault(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "http://bus:6379",
        "redis:secret@bus",
        "redis://",
        "redis://:secret@",
        "redis://:secret@bus:port",
        "redis://:secret@bus:0",
        "redis://:secret@bus:70000",
        "redis://:secret@bus/name",
        "redis://:sec#ret@bus",
        "redis://:secret@bus;redis://other",
        "redis://:secret@bus?ssl_ca_certs=/x",
        "rediss://:secret@bus?ssl_cert_reqs=none",
        "rediss://:secret@bus?ssl_ca_certs=",
        "rediss://:secret@bus?secret",
        "amqp://:secret@bus",
    ],
)
def test_faults_never_repeat_the_url(url: str) -> None:
    """A URL that cannot be used is refused with the rule, and without the password in it."""
    with pytest.raises(SettingsError, match=r"^BRIDGE_MONITOR_URL: ") as caught:
        load_monitor_settings({"BRIDGE_MONITOR_URL": url})
    assert "sec" not in str(caught.value)
    assert "\n" not in str(caught.value)


@given(url=st.one_of(st.text(), st.text().map("redis://{}".format), st.text().map("rediss://:secret@{}".format)))
def test_no_text_breaks_the_rule(url: str) -> None:
    """Any text is either sound, and then Kombu can read it, or gets one line that does not hold it."""
    fault = bus_url_fault(url)
    if fault is None:
        assert parse_url(url)["transport"] in ("redis", "rediss")
    else:
        assert fault.isprintable()
        assert "secret" not in fault


def test_password_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the settings, nor the address, nor what it shows of itself repeats user and password."""
    url = "redis://somebody:secret@bus:6379/1"
    assert "secret" not in repr(load_monitor_settings({"BRIDGE_MONITOR_URL": url}))
    monkeypatch.setenv("BRIDGE_MONITOR_URL", url)
    address = required_bus()
    assert "secret" not in repr(address)
    assert address.shown == "redis://bus:6379/1"
    assert address.url == url


def test_tls_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    """rediss:// asks for a valid certificate of that host, with the authority that the URL names."""
    monkeypatch.setenv("BRIDGE_MONITOR_URL", "rediss://:p@bus:6380/0?ssl_ca_certs=/etc/ca.pem")
    connection = bus_connection(required_bus())
    assert connection.ssl == {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_check_hostname": True,
        "ssl_ca_certs": "/etc/ca.pem",
    }
    assert (connection.hostname, connection.port, connection.password) == ("bus", 6380, "p")


def test_no_bus_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the setting there is no bus, and who needs one is told the setting's name."""
    monkeypatch.delenv("BRIDGE_MONITOR_URL", raising=False)
    assert bus_address() is None
    with pytest.raises(NoMonitorBus, match="set BRIDGE_MONITOR_URL"):
        required_bus()
