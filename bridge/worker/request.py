"""The Request subclass: how a run ended → what becomes of its message.

Celery calls ``acknowledge`` and ``reject`` with meanings that do not fit SQS (the ``requeue`` flag differs between a
lost child and a time limit and means nothing; a late acknowledgement of a failure deletes the message). Here both only
carry out the verdict that was reached when the run ended; Celery's own bookkeeping (results, signals, events) stays
Celery's, except that a task which will run again stores no FAILURE.

Celery overrides ``execute_using_pool`` and ``on_success`` in a subclass of its own (create_request_cls), so neither is
touched here.
"""

from __future__ import annotations

import random
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.exceptions import InvalidTaskError, TimeLimitExceeded
from celery.worker import state as worker_state
from celery.worker.request import Request as CeleryRequest
from celery.worker.request import task_ready
from kombu.utils.encoding import safe_repr, safe_str

from bridge import scratch
from bridge.delivery.lease import Lease, LeaseState
from bridge.delivery.settle_calls import BUG_DELAY_SECONDS
from bridge.log import get_logger
from bridge.messages.retry_policy import Attempt, Failure, decide
from bridge.messages.verdicts import DeadLetter, Delete, HandBack, RetryIn, Verdict
from bridge.worker import claim_release, run_report
from bridge.worker.failure import failure_of, text_of, unwrapped

log = get_logger(__name__)

#: The process of the run is gone, so nothing of what it claimed was released.
_KILLED = frozenset({"worker-lost", "time-limit"})
#: Verdicts that every run needs, or may need, made once.
_DONE, _REVOKED = Delete(), Delete("ignored", "revoked")


class _FailedRun(NamedTuple):
    """How a run failed: Celery's report, the exception in it, and what it means (None: Celery sent the retry)."""

    exc_info: ExceptionInfo
    exc: BaseException
    failure: Failure | None
    send_failed_event: bool
    return_ok: bool


class Request(CeleryRequest):
    """One message handed to Celery, and the lease that holds it."""

    lease: Lease
    _verdict: Verdict | None = None
    #: Made for a killed run whose end waits until its claim is released; hardly any request needs one.
    _awaited: claim_release.AwaitedRelease | None = None

    def __init__(self, message: Any, **options: Any) -> None:
        """Find the lease by Kombu's delivery tag; raises InvalidTaskError when it is gone."""
        super().__init__(message, **options)
        if isinstance(self._body, list):
            self._content_type = self._content_encoding = None  # Celery's own sign that nothing is to be decoded
        self.acknowledged = False
        runtime = message.channel.runtime
        lease = runtime.leases.get(message.delivery_tag)
        if lease is None:
            raise InvalidTaskError("the message is no longer held")
        self.lease = lease
        self._runtime = runtime
        lease.request = weakref.ref(self)

    def acknowledge(self) -> None:
        """The run is over; without another verdict that means success."""
        if not self.acknowledged:
            self.acknowledged = True
            if self._verdict is None:
                run_report.succeeded(self)
            self._runtime.settler.settle(self.lease, self._verdict or _DONE)

    def reject(self, requeue: bool = False) -> None:
        """The run is over and failed; ``requeue`` carries no meaning."""
        if not self.acknowledged:
            self.acknowledged = True
            verdict = self._verdict or DeadLetter("rejected", None, "Celery rejected the message")
            self._runtime.settler.settle(self.lease, verdict)
            if isinstance(verdict, HandBack) or (isinstance(verdict, DeadLetter) and verdict.reason == "rejected"):
                self.send_event("task-rejected", requeue=isinstance(verdict, HandBack))

    def revoked(self) -> bool:
        """Say whether the task was revoked or has expired; then its message is settled as ignored."""
        self._verdict = _REVOKED
        try:
            return bool(super().revoked())
        finally:
            self._verdict = None

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Celery's cold shutdown wants the task stopped: the drain does that, in its own order."""
        self._runtime.request_forced_drain()

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """End it on somebody's word (``revoke(terminate=True)``); its message is settled as ignored."""
        self._verdict = _REVOKED
        try:
            super().terminate(pool, signal)
        except Exception:
            self._verdict = None  # a pool that cannot end a task (threads, solo): it goes on, and may succeed
            raise

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Note that the run began."""
        super().on_accepted(pid, time_accepted)
        run_report.started(self, pid)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """A time limit passed: the soft one is the task's affair, the hard one ended its process.

        Billiard calls ``on_failure`` with the hard limit first, and then this; so the verdict is mostly reached.
        """
        if soft:
            super().on_timeout(soft, timeout)
            return
        self._clear_scratch()
        if self._awaited is None or not self._awaited.puts_off(timeout):
            self._end_after_timeout(timeout)

    def _end_after_timeout(self, timeout: float) -> None:
        if self._is_mine_to_end():
            error = TimeLimitExceeded(timeout)
            failure = Failure("time-limit", retryable=True, error_type=type(error).__name__, error=text_of(error))
            self._verdict = self._decide(failure)
            if isinstance(self._verdict, RetryIn):
                self._retry_without_result(text_of(error), None)
                return
            run_report.failed(self, failure)
        if isinstance(self._verdict, DeadLetter):
            with self._settled_whatever_happens():
                super().on_timeout(False, timeout)
        else:
            task_ready(self)  # it will run again, so there is no FAILURE to store

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> None:
        """The run failed, in whatever way; decide, then let Celery do its bookkeeping.

        Nothing may leave here as an exception: billiard only logs it, and the place in the pool, the message and its
        renewals would stay as they are.
        """
        try:
            self._end_failed_run(exc_info, send_failed_event, return_ok)
        except Exception as error:  # noqa: BLE001 - logged and survived, see above
            self._end_by_bug(error)

    def _end_by_bug(self, error: Exception) -> None:
        log.error("request_bug", **self.lease.log_fields, exc_info=error)
        task_ready(self)
        self._verdict = RetryIn(BUG_DELAY_SECONDS, BUG_DELAY_SECONDS, reason="bridge-error")
        self.reject()

    def _take_notes(self, exc: BaseException) -> None:
        """Use the count of the idempotency store, where the run had one, instead of SQS's."""
        retries = getattr(exc, "bridge_retries", None)
        if isinstance(retries, int):
            self._retries = retries

    @property
    def _retries(self) -> int:
        return int(self.request_dict.get("retries") or 0)

    @_retries.setter
    def _retries(self, retries: int) -> None:
        self.request_dict["retries"] = retries
        self.lease.retries = retries
        self.lease.attempts = retries + 1

    def _end_failed_run(self, exc_info: ExceptionInfo, send_failed_event: bool, return_ok: bool) -> None:
        if not return_ok:
            self._clear_scratch()
        if not self._is_mine_to_end():
            task_ready(self)
            return
        exc = unwrapped(exc_info.exception)
        failure = failure_of(exc_info, self.task, revoked=self._is_revoked())
        self._take_notes(exc)
        run = _FailedRun(exc_info, exc, failure, send_failed_event, return_ok)
        release = claim_release.owed(self, exc, failure)
        if release is None:
            self._end_with(run)
        elif failure is not None and not return_ok and failure.kind in _KILLED:
            # Only the store knows how many runs of this message have failed, and the message must find its claim free.
            self._awaited = claim_release.AwaitedRelease()
            release.then = partial(self._end_released_run, run)
            self._runtime.releases.add(release)
        else:
            self._runtime.releases.add(release)
            self._end_with(run)

    def _end_released_run(self, run: _FailedRun, failures: int | None) -> None:
        """Go on with the end of a killed run, once its claim is released; in a thread of ``Releases``."""
        if failures is not None:
            republished = (self._request_dict.get("bridge") or {}).get("republished")
            self._retries = failures - 1 + int(republished or 0)
        try:
            if self._is_mine_to_end():
                self._end_with(run)
            else:
                task_ready(self)  # the drain has stopped waiting and handed it back
        except Exception as error:  # noqa: BLE001 - as in on_failure
            self._end_by_bug(error)
        finally:
            if self._awaited is not None and (timeout := self._awaited.done()) is not None:
                self._end_after_timeout(timeout)

    def _end_with(self, run: _FailedRun) -> None:
        failure, exc, exc_info = run.failure, run.exc, run.exc_info
        if failure is None:
            self._verdict = _DONE
        elif failure.kind != "worker-lost" or not self._success_was_stored():
            self._verdict = self._decide(failure)
            if isinstance(self._verdict, RetryIn) and failure.kind != "retry-requested":
                self._retry_without_result(safe_repr(exc), exc_info.traceback)
                return
            run_report.failed(self, failure)
        # Else the child died after its work was done and stored: Celery acknowledges.
        if isinstance(exc, MemoryError):
            # Celery would raise it again in this process, which is not the one that ran out of memory.
            task_ready(self)
            self.reject()
            return
        with self._settled_whatever_happens():
            super().on_failure(exc_info, run.send_failed_event, run.return_ok)
        if failure is not None and failure.kind == "worker-lost" and isinstance(self._verdict, DeadLetter):
            self._announce_loss(exc_info, exc)

    def _clear_scratch(self) -> None:
        """Clear up for a child that is gone; not on the main loop, for it may be much."""
        threading.Thread(target=scratch.remove, args=(self.id,), name="bridge-scratch", daemon=True).start()

    @contextmanager
    def _settled_whatever_happens(self) -> Iterator[None]:
        """Around Celery's bookkeeping after a failure: a result backend that is down must not keep the message."""
        try:
            yield
        except Exception:
            log.exception("bookkeeping_failed", **self.lease.log_fields)
        finally:
            self.reject()

    def _is_mine_to_end(self) -> bool:
        """Say whether the message's end is still open: the drain may have stopped the task and handed it back."""
        return self.lease.state in (LeaseState.RUNNING, LeaseState.WAITING) and not self.acknowledged

    def _is_revoked(self) -> bool:
        return self._already_revoked or self.id in worker_state.revoked

    def _decide(self, failure: Failure) -> Verdict:
        lease, task = self.lease, self.task
        attempt = Attempt(
            retries=self._retries,
            max_retries=task.max_retries,
            age_seconds=lease.age_seconds(time.monotonic()),
            backoff_seconds=task.backoff_seconds,
            backoff_max_seconds=task.backoff_max_seconds,
        )
        jitter = random.random() if task.retry_jitter else 1.0  # noqa: S311 - spreads retries, is no secret
        verdict = decide(failure, attempt, jitter=jitter)
        if isinstance(verdict, RetryIn) and failure.kind == "wait":
            run_report.waits(self, verdict)
        elif isinstance(verdict, RetryIn):
            run_report.retried(self, verdict, attempt.retries)
        return verdict

    def _retry_without_result(self, exception: str, traceback: Any) -> None:
        """Retry what the child could not announce itself, and store no FAILURE for it."""
        task_ready(self)
        self.acknowledge()
        self.send_event("task-retried", exception=exception, traceback=safe_str(traceback or ""))

    def _announce_loss(self, exc_info: ExceptionInfo, exc: BaseException) -> None:
        """Store and signal a failure that no child could: Celery skips it for messages it believes requeued."""
        self.task.backend.mark_as_failure(self.id, exc, request=self._context, store_result=self.store_errors)
        signals.task_failure.send(
            sender=self.task,
            task_id=self.id,
            exception=exc,
            args=self.args,
            kwargs=self.kwargs,
            traceback=exc_info.traceback,
            einfo=exc_info,
        )
        self.send_event("task-failed", exception=safe_repr(exc), traceback=exc_info.traceback)
