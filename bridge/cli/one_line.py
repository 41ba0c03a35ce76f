"""An error of the AWS SDK as one line, for a command that has more to say before it ends."""

from __future__ import annotations


def aws_text(error: BaseException) -> str | None:
    """Return an error of the AWS SDK in one line, or None for any other error."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if not isinstance(error, (BotoCoreError, ClientError, Boto3Error)):
        return None
    return " ".join(str(error).split())
