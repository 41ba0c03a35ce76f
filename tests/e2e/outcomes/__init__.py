"""A real worker, a real pool, a real server: what becomes of a message, seen from SQS and from the worker's log."""
