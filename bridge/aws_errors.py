"""What AWS's error codes mean: one place for the codes that the bridge decides by. Pure.

SQS answers in two protocols (JSON and query) with different names for one mistake, and a HEAD of S3 has no body, so
that botocore gives the bare status as its code. Sources: "Error responses" (S3 API reference), "Common errors" (SQS and
DynamoDB API references).
"""

from __future__ import annotations

from bridge.text import one_line

#: There is no such queue.
NO_SUCH_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
#: There is no such bucket.
NO_SUCH_BUCKET = frozenset({"NoSuchBucket", "404"})
#: There is no such object, or no longer.
NO_SUCH_OBJECT = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
#: The version id asked for is a delete marker (GetObject, HeadObject).
DELETE_MARKER = frozenset({"MethodNotAllowed", "405"})
#: There is no such table.
NO_SUCH_TABLE = frozenset({"ResourceNotFoundException"})
#: The caller is known and may not do this.
ACCESS_DENIED = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AWS.SimpleQueueService.AccessDenied",
        "AllAccessDisabled",
        "KMS.AccessDeniedException",
        "KmsAccessDenied",
    }
)
#: The same as the answer to a HEAD of S3. From SQS a bare 403 may be a proxy's, which passes.
HEAD_DENIED = frozenset({"403", "Forbidden"})
#: The caller is not known: these credentials will never be accepted.
INVALID_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"}
)
#: The caller was known until a moment ago; rotating credentials may be renewed any time.
EXPIRED_CREDENTIALS = frozenset({"ExpiredToken", "ExpiredTokenException"})
#: The server does not know this call (another implementation of SQS or S3).
NOT_IMPLEMENTED = frozenset(
    {"AWS.SimpleQueueService.UnsupportedOperation", "UnsupportedOperation", "NotImplemented", "MethodNotAllowed"}
)
#: The condition of a conditional read or write does not hold.
PRECONDITION_FAILED = frozenset({"PreconditionFailed", "412"})
#: Another conditional write of the same key was under way.
WRITE_CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
#: What a person has to correct; waiting does not help.
PERMANENT = (
    NO_SUCH_QUEUE
    | NO_SUCH_BUCKET
    | NO_SUCH_TABLE
    | ACCESS_DENIED
    | HEAD_DENIED
    | INVALID_CREDENTIALS
    | EXPIRED_CREDENTIALS
)


def error_code(error: BaseException) -> str:
    """Return AWS's error code, or the error's class name where no answer came."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code") or type(error).__name__)
    return type(error).__name__


def is_stale_handle(code: str, message: str = "") -> bool:
    """Say whether an SQS error means that the receipt handle no longer holds its message.

    ReceiptHandleIsInvalid and MessageNotInflight say so themselves; InvalidParameterValue does when its text names the
    handle (an expired handle is answered that way too, elastic/beats#30675).
    """
    short = code.rsplit(".", 1)[-1]
    if short in ("ReceiptHandleIsInvalid", "MessageNotInflight"):
        return True
    return short == "InvalidParameterValue" and "receipt" in message.lower().replace(" ", "")


def aws_text(error: BaseException) -> str | None:
    """Return an error of the AWS SDK in one line, or None for any other error."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if not isinstance(error, (BotoCoreError, ClientError, Boto3Error)):
        return None
    return one_line(error)
