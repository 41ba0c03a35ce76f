"""A settlement: one message on its way to its end, with what was decided and how often it was tried."""

from __future__ import annotations

import random
from dataclasses import dataclass

from bridge.lanes import Again
from bridge.lease import Lease
from bridge.messages.verdicts import Verdict

#: After an error of our own with a message: long enough not to spin, and the receive count ends it some day.
BUG_DELAY_SECONDS = 60
#: Between tries: long enough not to add to a throttling, short enough to resume within 5 s of AWS coming back.
FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 3.0


@dataclass(eq=False, slots=True)
class Settlement:
    """What the lanes carry."""

    lease: Lease
    verdict: Verdict
    tries: int = 0

    def again(self) -> Again[Settlement]:
        """Return this settlement to be tried again, after a pause that doubles and is jittered."""
        self.tries += 1
        pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2 ** min(self.tries, 10))
        return Again(self, pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads retries, is no secret
