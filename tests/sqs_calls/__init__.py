"""``bridge.sqs_calls`` beside a boto3 client: what one shows, the other shows."""
