"""Idempotent runs: a task runs once for an event, even when SQS delivers the event twice.

``identity`` decides which deliveries are the same event, ``record`` defines what is stored about one, ``transitions``
how a record may change (the state machine); all three are pure. ``store`` is the protocol of the stores, ``s3_store``
and ``dynamodb_store`` implement it, and ``factory`` picks one. ``claiming`` acquires a claim, keeps it during a run,
and completes or releases it. docs/guide/idempotency.md describes the whole.
"""
