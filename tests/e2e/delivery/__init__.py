"""Real workers with a fault proxy before SQS: leases, the drain, outages, deletes and the number of calls."""

from __future__ import annotations
