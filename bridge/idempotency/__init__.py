"""Once, although delivered twice: the claim of a task on an event, and the stores that keep it.

``identity`` says which deliveries are the same, ``record`` what is kept of them, ``claims`` how a record may change
(the state machine): all three are pure. ``s3_store`` and ``dynamodb_store`` keep records; ``claimer`` carries a claim
through a run; ``release`` lets go of the claims of a run that can do so itself no more. docs/idempotency.md is the
whole in words and pictures.
"""
