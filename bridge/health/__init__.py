"""The health server, and what liveness and readiness are decided by."""

from __future__ import annotations
