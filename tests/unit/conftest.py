"""What every unit test leaves behind: nothing that Celery would add to another test's app."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import _state


@pytest.fixture(autouse=True)
def _no_shared_tasks_left() -> Iterator[None]:
    """Forget what the test registered for every app: Celery keeps shared tasks and warns of a name that comes again."""
    before = set(_state._on_app_finalizers)
    yield
    _state._on_app_finalizers.intersection_update(before)
