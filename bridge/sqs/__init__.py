"""SQS: clients, signed calls, queues, batches and quotas. Independent of Celery."""
