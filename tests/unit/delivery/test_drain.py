"""The longest time that a drain may take."""

from __future__ import annotations

import pytest

from bridge.delivery import drain
from bridge.delivery.drain import longest_drain_seconds

BUDGETS = sorted(name for name in vars(drain) if name.endswith("_SECONDS") and not name.startswith("_"))


def test_the_longest_drain_is_the_one_that_the_docs_name() -> None:
    """BRIDGE_DRAIN_SECONDS comes on top of 24.5 s, the number in docs/operate/operations.md."""
    assert longest_drain_seconds(0.0) == 24.5
    assert longest_drain_seconds(100.0) == 124.5


@pytest.mark.parametrize("name", BUDGETS)
def test_every_budget_of_the_drain_counts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that may take longer makes the longest drain longer, at least by as much."""
    before = longest_drain_seconds(25.0)
    monkeypatch.setattr(drain, name, getattr(drain, name) + 10.0)
    assert longest_drain_seconds(25.0) >= before + 10.0
