"""Whatever the bus does, the work goes on: throughput, settling and SIGTERM of a real worker."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.monitoring.site import END_SECONDS, Listener, Site, bus_in_this_process
from tests.support.servers.redis import RedisServer
from tests.support.servers.sqs import SqsServer
from tests.support.servers.waiting import wait_until
from tests.support.worker_process import WorkerProcess

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.elasticmq]

MESSAGES = 3_000
#: A worker that waited for the bus, once a message or for one time-out only, would be slower than this many times.
SLOWER_AT_MOST = 4.0
EXIT_SECONDS = 15.0


@pytest.fixture(scope="module")
def fresh_site(elasticmq_server: SqsServer) -> Iterator[Site]:
    """A queue of the module's own; each test names its bus."""
    with Site(elasticmq_server, "") as site:
        yield site


@pytest.fixture(scope="module")
def seconds_per_state() -> dict[str, float]:
    """How long the messages took, by the state of the bus."""
    return {}


@pytest.mark.parametrize("state", ["up", "refused", "hanging"])
def test_three_thousand_messages(
    fresh_site: Site, make_redis: Callable[..., RedisServer], state: str, seconds_per_state: dict[str, float]
) -> None:
    """3,000 messages are all settled, about as fast with the bus up, closed or frozen, and SIGTERM is honoured."""
    redis = make_redis()
    if state != "refused":
        redis.start()
    if state == "hanging":
        redis.freeze()
    fresh_site.put_noops(MESSAGES)
    began = time.monotonic()
    # INFO writes half a dozen lines a message, which the test would mostly be busy with.
    environment = fresh_site.environment(BRIDGE_MONITOR_URL=redis.url, BRIDGE_LOG_LEVEL="WARNING")
    with WorkerProcess(environment, "-c", "2", "-l", "WARNING", wait_ready=False) as worker:
        fresh_site.wait_empty()
        seconds_per_state[state] = time.monotonic() - began
        worker.process.terminate()
        asked_at = time.monotonic()
        assert worker.wait_exit(EXIT_SECONDS) == 0
        left_after = time.monotonic() - asked_at
    print(f"bus {state}: {MESSAGES} in {seconds_per_state[state]:.1f} s with the start; left after {left_after:.1f} s")  # noqa: T201 - the measure
    assert (state == "up") == (not worker.found("bus_lost"))
    assert seconds_per_state[state] < SLOWER_AT_MOST * min(seconds_per_state.values())


def test_wrong_password_then_full_then_killed(fresh_site: Site, make_redis: Callable[..., RedisServer]) -> None:
    """The bus refuses the password, is full, dies and returns: only events are lost, and it is found again."""
    redis = make_redis("--maxmemory-policy", "noeviction", password="of-the-worker")
    redis.start()
    url = redis.url
    undo = bus_in_this_process(url)
    try:
        with Listener(url) as listener:
            redis.set_password("another")
            with fresh_site.worker("-c", "1", BRIDGE_MONITOR_URL=url) as worker:
                refused = worker.wait_event("bus_lost", END_SECONDS, use="remote control")
                worker.wait_event("bus_lost", END_SECONDS, use="events")
                assert refused["bus"] == f"redis://127.0.0.1:{redis.port}"
                done = fresh_site.put("good/wrong password")
                assert worker.wait_event("message_settled", END_SECONDS, message_id=done)["outcome"] == "deleted"
                # Events are not stored, so a Redis out of memory carries them; a mailbox is, so it refuses that.
                redis.ask("CONFIG", "SET", "maxmemory", "1")
                redis.set_password("of-the-worker")
                worker.wait_event("bus_back", END_SECONDS, use="events")
                done = fresh_site.put("good/full")
                listener.wait(lambda _: listener.of(done, "task-succeeded"), END_SECONDS, "events of a full bus")
                assert not worker.found("bus_back", use="remote control")
                redis.ask("CONFIG", "SET", "maxmemory", "0")
                worker.wait_event("bus_back", END_SECONDS, use="remote control")
                assert fresh_site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}
                listener.stop()
                _dies_and_returns(fresh_site, redis, worker)
            assert "of-the-worker" not in worker.output
    finally:
        undo()


def _dies_and_returns(site: Site, redis: RedisServer, worker: WorkerProcess) -> None:
    redis.kill()
    meanwhile = site.put("good/meanwhile")
    assert worker.wait_event("message_settled", END_SECONDS, message_id=meanwhile)["outcome"] == "deleted"
    worker.wait_event("bus_lost", END_SECONDS, use="events")
    wait_until(lambda: len(worker.found("bus_lost", use="remote control")) == 2, END_SECONDS, "remote control lost")
    redis.start()
    with Listener(redis.url) as listener:
        worker.wait_event("bus_back", END_SECONDS, use="events")
        wait_until(lambda: len(worker.found("bus_back", use="remote control")) == 2, END_SECONDS, "remote control back")
        afterwards = site.put("good/afterwards")
        listener.wait(lambda _: listener.of(afterwards, "task-succeeded"), END_SECONDS, "events again")
    assert site.asked(worker, lambda i: i.ping()) == {"ok": "pong"}
