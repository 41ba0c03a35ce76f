"""``bridge.sqs.fast_client`` beside a boto3 client: what one shows, the other shows."""
