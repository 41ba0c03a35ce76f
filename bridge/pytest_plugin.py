"""The pytest plugin of ``bridge.testing``: what a test made with ``s3_object`` ends with the test.

A room of its own, and light: pytest loads it in every project of an environment where the package is installed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _forget_s3_objects() -> Iterator[None]:
    """Give each test objects of its own; a test that makes none reads from S3, as ever."""
    yield
    testing = sys.modules.get("bridge.testing")
    if testing is not None:
        testing.forget_objects()
