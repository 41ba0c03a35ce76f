"""The servers of the bench: SQS and S3 in memory, a proxy that delays each call, and what starts them."""
