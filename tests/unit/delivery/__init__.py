"""Leases, settling, liveness, bounds and scratch directories, without a server or a worker process."""

from __future__ import annotations
