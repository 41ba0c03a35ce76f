"""The AWS error codes that the bridge acts on, grouped by meaning. Pure.

One error can have several codes. SQS names it differently in its two protocols (JSON and query). An S3 answer to HEAD
has no body, so botocore uses the bare HTTP status as the code. Sources: "Error responses" (S3 API reference), "Common
errors" (SQS and DynamoDB API references).
"""

from __future__ import annotations

from bridge.text import one_line

#: The queue does not exist.
NO_SUCH_QUEUE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"})
#: The bucket does not exist.
NO_SUCH_BUCKET = frozenset({"NoSuchBucket", "404"})
#: The object does not exist, or no longer exists.
NO_SUCH_OBJECT = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
#: The requested version id is a delete marker (GetObject, HeadObject).
DELETE_MARKER = frozenset({"MethodNotAllowed", "405"})
#: The table does not exist.
NO_SUCH_TABLE = frozenset({"ResourceNotFoundException"})
#: AWS knows the caller, and the caller lacks the permission.
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
#: The same in an S3 answer to HEAD. From SQS a bare 403 may come from a proxy and be temporary.
HEAD_DENIED = frozenset({"403", "Forbidden"})
#: AWS does not know the caller: it will never accept these credentials.
INVALID_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException"}
)
#: The credentials have expired; rotating credentials may be renewed at any time.
EXPIRED_CREDENTIALS = frozenset({"ExpiredToken", "ExpiredTokenException"})
#: The server does not implement this call (servers other than AWS's SQS and S3).
NOT_IMPLEMENTED = frozenset(
    {"AWS.SimpleQueueService.UnsupportedOperation", "UnsupportedOperation", "NotImplemented", "MethodNotAllowed"}
)
#: The condition of a conditional read or write does not hold.
PRECONDITION_FAILED = frozenset({"PreconditionFailed", "412"})
#: Another conditional write of the same key was in progress.
WRITE_CONFLICT = frozenset({"ConditionalRequestConflict", "409"})
#: Errors that must be corrected by a person; waiting does not help.
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
    """Return the AWS error code, or the exception's class name when AWS sent no answer."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return str(response.get("Error", {}).get("Code") or type(error).__name__)
    return type(error).__name__


def is_stale_handle(code: str, message: str = "") -> bool:
    """Return whether an SQS error means that the receipt handle is no longer valid for its message.

    ReceiptHandleIsInvalid and MessageNotInflight always mean that. InvalidParameterValue means it when its text names
    the receipt handle; SQS also answers so for an expired handle (elastic/beats#30675).
    """
    short = code.rsplit(".", 1)[-1]
    if short in ("ReceiptHandleIsInvalid", "MessageNotInflight"):
        return True
    return short == "InvalidParameterValue" and "receipt" in message.lower().replace(" ", "")


def aws_text(error: BaseException) -> str | None:
    """Return the text of an AWS SDK error on one line, or None for any other error."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    if not isinstance(error, (BotoCoreError, ClientError, Boto3Error)):
        return None
    return one_line(error)
