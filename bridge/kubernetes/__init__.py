"""Kubernetes: pod deletion cost and the Jobs that a task launches."""

from __future__ import annotations
