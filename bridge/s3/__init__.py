"""Amazon S3: events, objects, reading, listing and bucket notifications."""

from __future__ import annotations
