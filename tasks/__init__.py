"""Tasks that come with Bucket Brigade, to use as they are or to copy. ``bridge`` imports nothing from here."""

from __future__ import annotations
