"""Backfill: events for objects that lie in a bucket already."""

from __future__ import annotations
