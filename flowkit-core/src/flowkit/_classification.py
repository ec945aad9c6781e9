"""The default classification of errors that users' code raises."""


def default_classification(error: BaseException) -> tuple[str, bool]:
    """Return the reason code of an error by its type, and whether it is permanent.

    Exactly ``TypeError``, ``ValueError`` and ``KeyError`` say that the input is wrong, which is permanent. Their subclasses, such as
    ``json.JSONDecodeError`` or ``UnicodeDecodeError``, often come from a service that answers badly for a while: they are not.
    """
    if type(error) in (TypeError, ValueError, KeyError):
        return "bad_input", True
    return "unexpected_error", False
