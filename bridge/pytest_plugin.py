"""The pytest plugin of ``bridge.testing``: it removes the objects that a test made with ``s3_object``.

It is a separate, small module, because pytest loads it for every project in an environment that has the package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _forget_s3_objects() -> Iterator[None]:
    """Give each test its own objects; a test that makes none reads from S3 as usual."""
    yield
    testing = sys.modules.get("bridge.testing")
    if testing is not None:
        testing.forget_objects()
