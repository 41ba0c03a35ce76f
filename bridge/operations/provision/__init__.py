"""Provision: queues, policies and notifications, planned and applied."""

from __future__ import annotations
