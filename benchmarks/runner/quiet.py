"""Was the machine the bench's own while it measured? A virtual machine whose host gives its time to others was not.

Linux counts the time in which a virtual processor wanted to run and was not let (``steal``). A run that lost more than
a little of it says how busy the neighbours were, and where contestants run one after the other, it says so of one of
them only. So such a run is done again, for everybody by the same rule, which looks at the machine alone and never at a
rate.
Source: https://docs.kernel.org/filesystems/proc.html, /proc/stat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: More than this of the time that the machine wanted, taken by its host, and a run is done again.
MOST_STOLEN = 0.05
#: So often at most; then the least disturbed of them counts.
MOST_TIMES = 5
#: A neighbour on the other half of a core steals nothing, and slows all the same: how much slower a loop may be.
MOST_SLOWED = 1.3
LOOK_SECONDS = 0.4
PAUSE_SECONDS = 4.0
#: One run waits for no longer: a clock that was fast for a moment makes every later look seem slow.
LONGEST_WAIT_SECONDS = 20.0
_LOOP = range(100_000)


@dataclass(frozen=True)
class Ticks:
    """Time of all processors since the start of the machine, in ticks: what was used, and what its host took."""

    used: int
    stolen: int

    @classmethod
    def of(cls, stat: str) -> Ticks:
        """Read the text of /proc/stat; a guest's time is in ``user`` already."""
        user, nice, system, _, _, irq, softirq, stolen = (int(word) for word in stat.split("\n", 1)[0].split()[1:9])
        return cls(user + nice + system + irq + softirq, stolen)

    def stolen_since(self, before: Ticks) -> float:
        """Return the share of the time wanted since then that the host took; 0 when none was wanted."""
        used, stolen = self.used - before.used, self.stolen - before.stolen
        return stolen / (used + stolen) if stolen > 0 else 0.0


def ticks() -> Ticks:
    """Return those of now; none are ever stolen where the kernel does not count them."""
    try:
        return Ticks.of(Path("/proc/stat").read_text())
    except OSError:
        return Ticks(0, 0)


def loop_seconds() -> float:
    """Return the CPU time of the fastest of a few equal loops, in seconds."""
    taken, end = [], time.monotonic() + LOOK_SECONDS
    while time.monotonic() < end:
        began = time.thread_time()
        for _ in _LOOP:
            pass
        taken.append(time.thread_time() - began)
    return min(taken)


@dataclass
class Quiet:
    """Waits for a machine of one's own, and does again what was disturbed, until its patience is used up."""

    patience_seconds: float = 0.0
    ticks: Callable[[], Ticks] = ticks
    look: Callable[[], float] = loop_seconds
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    #: The share that the host took of every run that counts, in their order.
    stolen: list[float] = field(default_factory=list)
    again: int = 0
    waited_seconds: float = 0.0
    _fastest: float = float("inf")

    def measure(self, run: Callable[[], T]) -> T:
        """Run when the machine is quiet, and again when it was not; return the least disturbed answer."""
        answers: list[tuple[float, T]] = []
        while True:
            self._wait()
            began, before = self.clock(), self.ticks()
            answer = run()
            answers.append((self.ticks().stolen_since(before), answer))
            if not self._wants_another([share for share, _ in answers]):
                break
            self.again += 1
            self.patience_seconds -= self.clock() - began
        share, answer = min(answers, key=lambda one: one[0])
        self.stolen.append(share)
        return answer

    def begin(self) -> None:
        """Forget what was seen of the machine so far; how fast it can be is kept, and the patience that is left."""
        self.stolen.clear()
        self.again, self.waited_seconds = 0, 0.0

    def told(self) -> dict[str, float | int | bool]:
        """Return what the results say of it; shares of 1."""
        found = sorted(self.stolen) or [0.0]
        return {
            "stolen_median": round(found[len(found) // 2], 4),
            "stolen_highest": round(found[-1], 4),
            "disturbed": sum(share > MOST_STOLEN for share in found),
            "measured": len(self.stolen),
            "again": self.again,
            "waited_seconds": round(self.waited_seconds),
            "patience_ended": self.patience_seconds <= 0,
        }

    def _wants_another(self, shares: Sequence[float]) -> bool:
        return min(shares) > MOST_STOLEN and len(shares) < MOST_TIMES and self.patience_seconds > 0

    def _wait(self) -> None:
        if self.patience_seconds <= 0:
            return
        arrived = self.clock()
        while not self._is_quiet() and self.patience_seconds > 0 and self.clock() - arrived < LONGEST_WAIT_SECONDS:
            began = self.clock()
            self.sleep(PAUSE_SECONDS)
            waited = self.clock() - began
            self.waited_seconds += waited
            self.patience_seconds -= waited

    def _is_quiet(self) -> bool:
        before = self.ticks()
        taken = self.look()
        self._fastest = min(self._fastest, taken)
        return self.ticks().stolen_since(before) <= MOST_STOLEN and taken <= MOST_SLOWED * self._fastest


#: The one of this process: what it saw of the machine is true of every figure.
MACHINE = Quiet()
