"""SQS: clients, signed calls, queues, batches and quotas. Knows no Celery."""
