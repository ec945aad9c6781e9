"""Reason codes of errors: those that errors carry, and the default for all others."""

import logging
from typing import Any

from flowkit._text.redaction import printable
from flowkit._user_code.containment import contained, error_text
from flowkit.errors import CorruptRecord, NodeFailure

logger = logging.getLogger(__name__)

MAX_REASON = 200
UNEXPECTED = "unexpected_error"


def default_classification(error: BaseException) -> tuple[str, bool]:
    """Return the reason code of an error by its type, and whether it is permanent.

    Exactly ``TypeError``, ``ValueError`` and ``KeyError`` mean that the input is wrong, which is
    permanent. Their subclasses are not permanent: ``json.JSONDecodeError`` or
    ``UnicodeDecodeError``, for example, often come from a service that fails for a while.
    """
    if type(error) in (TypeError, ValueError, KeyError):
        return "bad_input", True
    return UNEXPECTED, False


def carried_reason(error: BaseException) -> tuple[str, bool] | None:
    """Return the reason code that an error carries and whether it is permanent, or None.

    Foreign code creates ``NodeFailure`` objects, so their attributes may have any value.
    """
    if isinstance(error, CorruptRecord):
        return "corrupt_record", True
    if not isinstance(error, NodeFailure):
        return None
    try:
        return contained(lambda: checked_reason((error.reason_code, error.permanent)))
    except Exception as wrong:
        logger.warning(
            "A NodeFailure has no usable reason code: %s",
            error_text(wrong),
            extra={"action": "classify_failed"},
        )
        return None


def checked_reason(answer: Any) -> tuple[str, bool]:
    """Return the reason code of foreign code, and whether the error is permanent.

    Raises:
        TypeError: the reason code is not a string, or empty.
    """
    reason, permanent = answer
    if not isinstance(reason, str) or not reason:
        raise TypeError(f"a reason code is a string that is not empty, not {type(reason).__name__}")
    return reason, bool(permanent)


def shown_reason(reason: str) -> str:
    """Return the stored form of a reason code."""
    return printable(reason)[:MAX_REASON]
