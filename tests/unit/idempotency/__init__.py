"""Once, although delivered twice: identity, records, claims, stores and the flow around a task; no worker runs."""

from __future__ import annotations
