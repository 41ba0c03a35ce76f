"""A module that imports one which is not installed."""

from __future__ import annotations

import a_package_nobody_has  # type: ignore[import-not-found]  # noqa: F401 - its absence is the point
