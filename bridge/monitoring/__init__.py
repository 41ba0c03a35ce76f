"""Flower, the monitor bus that carries its events, and the depths of the queues."""

from __future__ import annotations
