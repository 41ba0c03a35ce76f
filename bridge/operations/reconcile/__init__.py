"""Reconcile: objects of a bucket compared with what has been completed."""

from __future__ import annotations
