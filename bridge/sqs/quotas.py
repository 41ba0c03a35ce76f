"""SQS's limits, each with its source. Pure.

"Amazon SQS message quotas" and "Amazon SQS standard queue quotas" are pages of the SQS developer guide; the actions are
those of the SQS API reference.
"""

from __future__ import annotations

#: Entries of one batch call, and messages of one receive (SendMessageBatch, DeleteMessageBatch,
#: ChangeMessageVisibilityBatch, ReceiveMessage).
MAX_BATCH_ENTRIES = 10
#: Attributes that a sender may give a message ("Amazon SQS message quotas").
MAX_MESSAGE_ATTRIBUTES = 10
#: The largest size of a message, and of all messages of one batch together, attributes included. A queue may set a
#: lower limit (MaximumMessageSize; "Amazon SQS message quotas").
MAX_MESSAGE_BYTES = 1_048_576
#: The longest DelaySeconds, in seconds (SendMessage).
MAX_DELAY_SECONDS = 900
#: The longest visibility timeout in seconds, from the receive over all renewals (ChangeMessageVisibility).
MAX_VISIBILITY_SECONDS = 43_200
#: Messages of a standard queue that may be in flight at once ("Amazon SQS standard queue quotas").
MAX_IN_FLIGHT = 120_000
