"""Delivery without servers or workers: leases, settling, liveness, bounds and scratch, on a fake clock where time counts."""

from __future__ import annotations
