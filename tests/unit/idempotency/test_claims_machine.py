"""Claims under any interleaving of runs, crashes, expiries, clock steps and store errors."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bridge.errors import ClaimLost, StoreUnavailable
from bridge.idempotency import claiming
from bridge.idempotency.claiming import Claim, Claimer, ClaimingRun
from bridge.idempotency.identity import of_record
from bridge.idempotency.record import Record, from_json
from bridge.idempotency.transitions import Busy, Done, Outdated
from bridge.s3.event import ObjectRecord
from tests.unit.idempotency.paused_calls import FAULTS, PausedCall, PausingStore

CLAIM_SECONDS = 60.0
START = 1_800_000_000.0
#: Far beyond all steps of the clock: that a record expires is another test's affair.
TTL_SECONDS = 10**8
EVENTS = range(3)
#: How a call goes on: most go through all of their steps at once, or the work would never get far enough to be spoiled,
#: and some of those meet a fault on their first or second one. The others stop before each step.
STEPS = st.sampled_from([(), (), (), (), "stop", "stop", *((f,) for f in FAULTS), *((None, f) for f in FAULTS)])
MESSAGES = ("m0", "m1")


@dataclass(eq=False)
class Runner:
    """A run of a message, as far as the outside knows about it."""

    run: ClaimingRun
    event: int
    claim_request: Any
    skew: float
    state: str = "claiming"  # then working → ended or gone
    read_clock: float = 0.0
    claim: Claim | None = None
    counted: int = 0
    saves: int = 0
    given_up: bool = False
    claimer: Claimer = field(init=False)


class Ticks:
    """The time module of the claimer: a completion is tried a few times, and nobody sleeps."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += 25.0


class ClaimsMachine(RuleBasedStateMachine):
    """Beside the claims stands a model that is told of nothing but the writes that took effect, in their order."""

    latest_only = False

    def __init__(self):
        super().__init__()
        ticks = Ticks()
        self.patches = patch.object(
            claiming, "time", SimpleNamespace(monotonic=ticks.monotonic, sleep=ticks.sleep, time=lambda: START)
        )
        self.patches.start()
        self.now = self.latest = START
        self.numbers = itertools.count()
        self.runners: list[Runner] = []
        self.calls: list[PausedCall] = []
        self.seen = 0
        # The model, by record id or by event.
        self.completions: dict[str, list[Runner]] = {}
        self.failures: dict[str, dict[str, int]] = {}
        self.progress: dict[str, tuple[str, dict[str, Any]]] = {}
        self.newest: dict[str, int] = {}

    @initialize(like_s3=st.booleans())
    def begin(self, like_s3):
        """S3: tags are of the content and a refusal tells nothing. DynamoDB: the other way round."""
        self.store = PausingStore(refusal_tells=not like_s3, content_tags=like_s3)

    def teardown(self):
        """Whatever happened, the work on each event can be finished once all claims have ended by themselves."""
        try:
            for call in self.calls:
                call.crash()
            if hasattr(self, "store"):
                self.look_at_the_log()
                self.finish_everything()
        finally:
            self.patches.stop()

    # ---- runs

    def runner(self, event, message, skew, receives):
        """A run that has not asked for anything yet."""
        owner = f"{message}/{receives}/w{next(self.numbers)}"
        record = ObjectRecord(bucket="b", key="k", etag=f"e{event}", sequencer=f"0{event + 1}0")
        claim_request = of_record("task", record, latest_only=self.latest_only)
        runner = Runner(ClaimingRun(owner, message, receives, CLAIM_SECONDS), event, claim_request, skew)

        def clock():
            runner.read_clock = self.now + runner.skew
            return runner.read_clock

        runner.claimer = Claimer(self.store, ttl_seconds=TTL_SECONDS, clock=clock)
        self.runners.append(runner)
        return runner

    def call(self, runner, kind, steps, call):
        """Begin a call of a run's; it stops before its first step, or takes all of them."""
        if not kind.startswith("parent"):
            runner.state = kind
        paused = PausedCall(call, runner, kind)
        self.calls.append(paused)
        if steps != "stop":
            faults = iter(steps)
            while not paused.ended:
                paused.step(next(faults, None))
        self.after_step(paused)

    def working(self):
        """The runs that hold a claim, or believe that they do, and are at nothing else."""
        return [runner for runner in self.runners if runner.state == "working"]

    @precondition(lambda self: len(self.calls) < 5)
    @rule(
        event=st.sampled_from(EVENTS),
        message=st.sampled_from(MESSAGES),
        skew=st.sampled_from([0.0, 0.0, 0.0, -45.0, 45.0, 90.0]),
        receives=st.sampled_from([1, 2]),
        steps=STEPS,
    )
    def deliver(self, event, message, skew, receives, steps):
        """A message arrives, and its run asks for its claim."""
        runner = self.runner(event, f"{message}-e{event}", skew, receives)
        self.call(runner, "acquire", steps, lambda: runner.claimer.acquire(runner.claim_request, runner.run))

    @precondition(lambda self: self.working())
    @rule(data=st.data(), steps=STEPS)
    def save(self, data, steps):
        """A run saves a checkpoint that no other run has."""
        runner = data.draw(st.sampled_from(self.working()))
        runner.saves += 1
        progress = {"by": runner.run.owner, "part": runner.saves}
        self.call(runner, "save", steps, lambda: runner.claim.save(progress))

    @precondition(lambda self: self.working())
    @rule(data=st.data(), steps=STEPS)
    def succeed(self, data, steps):
        """The task of a run returned."""
        runner = data.draw(st.sampled_from(self.working()))
        self.call(runner, "complete", steps, lambda: runner.claim.complete({"by": runner.run.owner}))

    @precondition(lambda self: self.working())
    @rule(data=st.data(), kind=st.sampled_from(["fail", "fail", "release", "crash"]), steps=STEPS)
    def end_badly(self, data, kind, steps):
        """The task of a run raised, or found its object gone, or its worker died and nobody is told."""
        runner = data.draw(st.sampled_from(self.working()))
        if kind == "crash":
            runner.state = "gone"
        else:
            self.call(runner, kind, steps, lambda: runner.claim.release(failed=kind == "fail"))

    @precondition(lambda self: any(not runner.given_up for runner in self.runners))
    @rule(data=st.data(), failed=st.booleans(), steps=STEPS)
    def parent_releases(self, data, failed, steps):
        """The parent lets go for a run: it is gone, or could not do so itself, or is being drained this moment."""
        runner = data.draw(st.sampled_from([runner for runner in self.runners if not runner.given_up]))
        runner.given_up = True
        parent = Claimer(self.store, ttl_seconds=TTL_SECONDS, clock=lambda: self.now)
        kind = "parent fails" if failed else "parent releases"
        self.call(runner, kind, steps, lambda: parent.release(runner.claim_request, runner.run, failed=failed))

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), after=st.booleans())
    def crash_in_a_call(self, data, after):
        """A worker dies in a call to the store, before or after it took effect."""
        call = data.draw(st.sampled_from(self.calls))
        call.step("crash") if after else call.crash()
        call.crash()
        self.calls.remove(call)
        if not call.kind.startswith("parent"):
            call.by.state = "gone"
        self.look_at_the_log()

    # ---- steps

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), fault=st.sampled_from([None, None, None, *FAULTS]))
    def step(self, data, fault):
        """One call takes one step at the store."""
        call = data.draw(st.sampled_from(self.calls))
        call.step(fault)
        self.after_step(call)

    @precondition(lambda self: self.calls)
    @rule(data=st.data())
    def go_through(self, data):
        """One call takes all of its steps, undisturbed."""
        call = data.draw(st.sampled_from(self.calls))
        while not call.ended:
            call.step()
        self.after_step(call)

    @precondition(lambda self: self.store.late)
    @rule(data=st.data())
    def arrive_late(self, data):
        """A write arrives after its caller was told that it failed."""
        self.store.land(data.draw(st.integers(0, len(self.store.late) - 1)))

    @rule(seconds=st.sampled_from([1.0, 30.0, CLAIM_SECONDS, 3 * CLAIM_SECONDS, -20.0, -2 * CLAIM_SECONDS]))
    def tick(self, seconds):
        """Time passes, or a clock is set back."""
        self.now += seconds
        self.latest = max(self.latest, self.now)

    # ---- what the calls said

    def after_step(self, call):
        """Bring the model up to date; then look at the answer of a call that has ended."""
        self.look_at_the_log()
        if not call.ended:
            return
        if call in self.calls:
            self.calls.remove(call)
        runner: Runner = call.by
        assert call.error is None or isinstance(call.error, (StoreUnavailable, ClaimLost)), repr(call.error)
        if call.kind.startswith("parent"):
            assert not isinstance(call.error, ClaimLost)
            return
        if runner.state == "gone":
            return
        runner.state = "ended"
        if call.kind == "acquire":
            self.look_at_the_decision(runner, call)
        elif call.kind == "save" and not isinstance(call.error, ClaimLost):
            runner.state = "working"
        elif call.kind == "complete":
            done = runner in self.completions.get(runner.claim_request.event, [])
            assert done or call.error is not None, "it was told that it completed, and it did not"
            # The record of an object may have been another event's since.
            untrue = done and isinstance(call.error, ClaimLost) and not self.latest_only
            assert not untrue, "it was told that it lost its claim, and it had completed"

    def look_at_the_decision(self, runner, call):
        """What a run is told, against the model; refusals may have been true a moment ago only."""
        if call.error is not None:
            assert isinstance(call.error, StoreUnavailable)
            return
        match call.answer:
            case Claim() as claim:
                runner.claim, runner.state = claim, "working"
                assert claim.retries == runner.counted_before
                assert claim.progress == runner.progress_before
            case Done(result):
                (by,) = self.completions[runner.claim_request.event]
                assert result == {"by": by.run.owner}
            case Outdated():
                assert self.latest_only
                assert self.newest[runner.claim_request.id] > runner.event
            case Busy(seconds):
                assert seconds > 0
            case other:
                raise AssertionError(other)

    # ---- what happened in the store

    @invariant()
    def look_at_the_log(self):
        """Each write that took effect was one that its run was entitled to."""
        if not hasattr(self, "store"):
            return
        for write in self.store.log[self.seen :]:
            self.seen += 1
            before = None if write.before is None else from_json(write.before)
            after = from_json(write.after)
            if write.kind == "acquire":
                self.on_claim(write, before, after)
            else:
                held = before is not None and before.status == "in-progress" and before.owner == write.by.run.owner
                assert held, f"a {write.kind} by a run that no longer holds its claim"
                self.on_change(write, after)
            assert after.failures == self.failures.get(write.record_id, {})

    def on_claim(self, write, before: Record | None, after: Record):
        """Of an event that is not done, whose claim is free or over on the claimer's own clock."""
        runner: Runner = write.by
        assert not self.completions.get(runner.claim_request.event), "a run of an event that was completed before"
        assert runner.event >= self.newest.get(write.record_id, -1), "an older event after a newer one was completed"
        if before is not None and before.status == "in-progress" and before.owner != runner.run.owner:
            assert before.claimed_until <= runner.read_clock, "taken from a run whose claim was live"
        assert (after.status, after.owner, after.event) == ("in-progress", runner.run.owner, runner.claim_request.event)
        assert after.claimed_until == runner.read_clock + CLAIM_SECONDS
        event, progress = self.progress.get(write.record_id, ("", {}))
        if event != runner.claim_request.event:
            progress = {}
        self.progress[write.record_id] = (runner.claim_request.event, progress)
        runner.progress_before = progress
        runner.counted_before = self.failures.get(write.record_id, {}).get(runner.run.message_id, 0)

    def on_change(self, write, after: Record):
        """Of the model: who completed what, whose failures count, and which checkpoint is the last."""
        runner: Runner = write.by
        failures = self.failures.setdefault(write.record_id, {})
        match write.kind:
            case "complete":
                done = self.completions.setdefault(runner.claim_request.event, [])
                done.append(runner)
                assert len(done) == 1, "completed twice"
                assert after.status == "completed"
                assert runner.event >= self.newest.get(write.record_id, -1), "the completed sequencer went down"
                self.newest[write.record_id] = runner.event
                self.progress[write.record_id] = (runner.claim_request.event, {})
                # What becomes of the counts of other messages here is asked in test_claims.py.
                assert after.failures.items() <= failures.items()
                self.failures[write.record_id] = dict(after.failures)
            case "save":
                assert after.status == "in-progress"
                self.progress[write.record_id] = (runner.claim_request.event, dict(after.progress or {}))
            case "fail" | "parent fails" | "release" | "parent releases":
                assert after.status == "released"
                if write.kind in ("fail", "parent fails"):
                    runner.counted += 1
                    assert runner.counted == 1, "one failure was counted twice"
                    failures[runner.run.message_id] = failures.get(runner.run.message_id, 0) + 1

    def finish_everything(self):
        """A healthy run of each event, after all claims have ended; then whatever is still on its way arrives."""
        # From the latest moment: a clock that was set back often may not have come to the end of a claim since.
        self.now = self.latest + 10 * CLAIM_SECONDS
        for event in EVENTS:
            runner = self.runner(event, "last", 0.0, 2)
            answer = runner.claimer.acquire(runner.claim_request, runner.run)
            outdated = self.latest_only and self.newest.get(runner.claim_request.id, -1) > event
            done = self.completions.get(runner.claim_request.event)
            if outdated:
                assert isinstance(answer, Outdated)
            elif done:
                assert answer == Done({"by": done[0].run.owner})
            else:
                assert isinstance(answer, Claim), answer
                answer.complete(event)
        kept = dict(self.store.kept)
        while self.store.late:
            self.store.land(0)
        assert self.store.kept == kept


class LatestOnlyMachine(ClaimsMachine):
    """The same with one record for all events of an object."""

    latest_only = True


TestClaims = ClaimsMachine.TestCase
TestClaims.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
TestLatestOnly = LatestOnlyMachine.TestCase
TestLatestOnly.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
