"""SQS and the network on a bad day: nothing is lost, nothing runs twice, and the worker goes on."""

from __future__ import annotations
