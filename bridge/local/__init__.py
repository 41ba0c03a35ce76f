"""S3 and SQS on this machine, for the demo and for tests: nothing here is needed by a worker in production."""
