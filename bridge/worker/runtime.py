"""The parts of a running worker: built, wired together and started.

Everything here lives in the parent process; ``bridge.worker.bootsteps`` joins it to Celery. The pool is forked before
any client or thread of the bridge exists.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from secrets import token_hex
from typing import Any

from celery import signals

from bridge import metrics
from bridge.delivery.drain import Drain
from bridge.delivery.heartbeat import Heartbeat
from bridge.delivery.intake import Intake
from bridge.delivery.lease import LeaseState
from bridge.delivery.lease_table import LeaseTable
from bridge.delivery.receivers import MAX_IN_FLIGHT, POOL_SECONDS, Receivers
from bridge.delivery.settler import Settler
from bridge.health.endpoints import Endpoints
from bridge.health.liveness import TICK_SECONDS, Liveness, longest_call_seconds, why_dead
from bridge.kubernetes.deletion_cost import DeletionCost, this_pod
from bridge.log import get_logger
from bridge.sqs.clients import PROBE_READ_SECONDS, RECEIVE_GRACE_SECONDS, new_session, renewal_read_seconds, sqs_client
from bridge.sqs.fast_client import SqsCalls
from bridge.sqs.queue_lookup import deferred_queue_lookup
from bridge.sqs.queues import Queue
from bridge.worker import claim_release as run_claims
from bridge.worker.claim_release import Releases
from bridge.worker.context import WorkerContext
from bridge.worker.dispatch import Dispatch
from bridge.worker.one_shot import present_one_shot
from bridge.worker.pool import WorkerPool
from bridge.worker.transport import Channel

log = get_logger(__name__)

#: How long a thread may keep the interpreter while others want it. With Python's own 5 ms a main loop that only has to
#: hand on the next task waits until a receiver has read ten messages, and processes stand idle; and 32 threads whose
#: tasks wait for something else wait for one another: 392 instead of 521 tasks of 50 ms per second, of 640.
SWITCH_SECONDS = 0.0005
#: The states of a message that is not settled yet.
_HELD = (LeaseState.WAITING, LeaseState.RUNNING, LeaseState.ENDING, LeaseState.RELEASING)


class WorkerRuntime:
    """The running worker's parts, wired together."""

    def __init__(self, context: WorkerContext, consumer: Any) -> None:
        """Build what needs no client; ``start`` does the rest."""
        self.context = context
        self.leases = LeaseTable()
        self._queues = {queue.name: queue for queue in context.queues}
        self._consumer = consumer
        self._pool = WorkerPool(consumer)
        self._consuming: set[str] = set()
        self._receiving: set[str] = set()
        self._started = False
        self._loop_turned_at = time.monotonic()
        self.releases = Releases()
        self._one_shot = present_one_shot()
        self.dispatch = Dispatch(self.leases, self._pool, hand_to_pool=consumer.on_task_request)
        self.settler: Settler
        self.drain: Drain

    def start(self) -> None:
        """Make the clients and start the threads, once per process."""
        if self._started:
            return
        self._started = True
        sys.setswitchinterval(SWITCH_SECONDS)
        settings = self.context.settings
        shortest = min((limit.visibility_timeout_seconds for limit in self.context.limits.values()), default=6)
        read_seconds = renewal_read_seconds(min(shortest, settings.visibility_timeout_seconds))
        session = self.context.session or new_session(settings.region)
        self._sdk_client = sqs_client("settle", settings.region, session=session)
        calls = partial(SqsCalls, session, self._sdk_client)
        self.settler = Settler(
            calls(read_seconds=RECEIVE_GRACE_SECONDS),
            self.leases,
            sender=self._sdk_client,
            worker=settings.pod_name,
            on_slot_free=self.dispatch.run_queue.slot_free,
        )
        self._intake = Intake(
            self.leases,
            self.settler,
            self.context.rules,
            self.context.limits,
            visibility_timeout_seconds=settings.visibility_timeout_seconds,
            spare_receives=settings.spare_receives,
            worker=f"{settings.pod_name}/{token_hex(4)}",
            wake=self.dispatch.wake,
        )
        self.dispatch.connect(self._intake.ready, self.settler)
        self._receivers = Receivers(
            calls(read_seconds=settings.wait_time_seconds + RECEIVE_GRACE_SECONDS),
            calls(read_seconds=PROBE_READ_SECONDS),
            self.leases,
            self._one_shot.counting(self._intake.take) if self._one_shot else self._intake.take,
            window=self._receive_window,
            # One poll per interval is what "paced" promises.
            max_in_flight=1 if self._one_shot or settings.poll_mode == "paced" else MAX_IN_FLIGHT,
            processes=self._pool.processes,
            # A run for so many messages counts what is held, and must not receive one too many.
            pool_seconds=0.0 if self._one_shot else POOL_SECONDS,
            visibility_timeout_seconds=settings.visibility_timeout_seconds,
            wait_time_seconds=settings.wait_time_seconds,
            max_messages_per_poll=settings.max_messages_per_poll,
            poll_interval_seconds=settings.poll_interval_seconds,
            paced=settings.poll_mode == "paced",
        )
        self._liveness = Liveness(self._why_dead)
        self._heartbeat = Heartbeat(
            calls(read_seconds=read_seconds),
            self.leases,
            self.dispatch.on_orphaned,
            renew=settings.heartbeat,
            on_sweep=self._liveness.look,
        )
        self.drain = Drain(
            self.leases,
            self.settler,
            self._receivers,
            self._heartbeat,
            pool_kind=self._pool.kind,
            pool_pids=self._pool.pids,
            drain_seconds=settings.drain_seconds,
            exit_code=self._exit_code,
            release_claims=run_claims.release_stopped,
        )
        if self._one_shot:
            self._one_shot.signal = lambda: self.drain.first_signal
            # In this order: what a receive brings is held before it is no longer asked for.
            self._one_shot.watch(lambda: self._receivers.asked() + self.leases.count(*_HELD), self.dispatch.end_worker)
        metrics.begin_at_zero(self._queues)
        metrics.leases.set_function(lambda: self.leases.count(*_HELD))
        signals.worker_shutdown.connect(lambda **_: self.drain.wait(), weak=False, dispatch_uid="bridge.drain")
        self.settler.start()
        self._heartbeat.start()
        # A Job's pod has no ReplicaSet that could choose another one.
        if self._one_shot is None and (pod := this_pod(settings.pod_name)) is not None:
            DeletionCost(pod, lambda: self.leases.count(*_HELD) > 0).start()
        self.drain.start()
        if self.context.health is not None:
            answers = Endpoints(
                self.context.queues, self.leases, self._liveness, consumed=self._consuming, receiving=self._receiving
            )
            self.context.health.start(answers.by_path())
        if self._pool.kind == "prefork":
            self._pool.keep_what_it_was_given()
        else:
            signals.task_postrun.connect(self.dispatch.on_run_ended, weak=False, dispatch_uid="bridge.run-ended")
            log.warning(
                "time_limits_not_enforced", error=f"Celery enforces time limits in prefork, not {self._pool.kind}"
            )

    def attach(self, channel: Channel) -> None:
        """Serve this channel; a new one after a restart of Celery's consumer."""
        self.dispatch.attach(channel)
        channel.runtime = self

    def consume(self, name: str, channel: Channel) -> None:
        """Receive from a queue, once its dead-letter queue is known."""
        if name in self._consuming:
            return
        self._consuming.add(name)
        queue = self._queues[name]
        if queue.dlq_url:
            self._receive(queue)
        else:
            deferred_queue_lookup(
                self._sdk_client,
                queue,
                self.context.settings.sqs_dlq_url,
                closed=lambda: self.leases.closed,
                found=self._receive,
                refused=lambda: self.dispatch.end_worker(2),
            )

    def knows(self, task: str | None) -> bool:
        """Say whether a task of this name is registered."""
        return task in self.context.limits

    def request_forced_drain(self) -> None:
        """Go to the last steps of the drain."""
        self.drain.request(forced=True)

    def _receive(self, queue: Queue) -> None:
        self._receivers.start(queue)
        self._receiving.add(queue.name)

    def _why_dead(self) -> list[str]:
        settings = self.context.settings
        return why_dead(
            self._receivers.states(),
            longest_call_seconds=longest_call_seconds(settings.wait_time_seconds, settings.poll_interval_seconds),
            loop_seconds=time.monotonic() - self._loop_turned_at,
            loop_runs_a_task=self._pool.kind == "solo" and self.leases.count(LeaseState.RUNNING) > 0,
            draining=self.leases.closed,
        )

    def register(self, hub: Any) -> None:
        """Join the event loop, again after each time that Celery rebuilt it."""
        self.dispatch.register(hub)
        hub.call_repeatedly(TICK_SECONDS, self._on_tick)

    def _on_tick(self) -> None:
        self._loop_turned_at = time.monotonic()
        self._pool.replace_dead_children()

    def _exit_code(self) -> int:
        """Return what a drain leaves with that cannot wait for Celery to leave."""
        if self._one_shot is None:
            return int(self._consumer.controller.exitcode or 0)
        code = self._one_shot.exit_code()
        self._one_shot.before_leaving(code)
        return code

    def _receive_window(self) -> int:
        if self._one_shot is None:
            return self._pool.window()
        return self._one_shot.window(self._pool.window(), self.leases.count(LeaseState.WAITING, LeaseState.RUNNING))
