"""Real SQS and S3 servers for tests, and the few calls that tests make to them."""
