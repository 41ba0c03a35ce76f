"""The figures beside the rates, one file each; every one can be run alone: ``python -m benchmarks.figures.latency``."""

from __future__ import annotations
