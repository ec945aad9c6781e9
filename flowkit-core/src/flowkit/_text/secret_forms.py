"""Forms of secrets that are recognized wherever they occur in a text.

A form matches the shortest text that reveals a secret, and may begin only outside of a token. So
the time of a search is proportional to the length of the text.
"""

import re

_START = r"(?<![A-Za-z0-9_-])"
_REST = r"[A-Za-z0-9_-]*"
_REST_OF_A_PEM_BLOCK = r"[\s\S]*?(?:-----END [A-Z0-9 ]{1,64}-----|\Z)"

_PEM_BLOCK = r"-----BEGIN [A-Z0-9 ]{1,64}-----"
_TOKENS = (
    ("a JSON web token", r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{2,}\."),
    ("a cloud access key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("a cloud access key", r"AIza[A-Za-z0-9_-]{35}"),
    ("an API token", r"fk_[A-Za-z0-9_-]{40}"),
    ("an API token", r"gh[pousr]_[A-Za-z0-9]{30}"),
    ("an API token", r"(?:github_pat_[A-Za-z0-9_]{22}|glpat-[A-Za-z0-9_-]{20})"),
    ("an API token", r"(?:xox[abceoprs]-[A-Za-z0-9-]{10}|xapp-[A-Za-z0-9-]{10})"),
    ("an API token", r"sk-[A-Za-z0-9_-]{20}"),
    ("an API token", r"[rs]k_(?:live|test)_[A-Za-z0-9]{10}"),
    ("an API token", r"(?:npm_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30})"),
    ("an API token", r"(?:dop_v1_[a-f0-9]{64}|pypi-[A-Za-z0-9_-]{40})"),
    ("a webhook secret", r"whsec_[A-Za-z0-9+/=]{24,}"),
    ("an API token", r"ya29\.[A-Za-z0-9_-]{20}"),
    ("an API token", r"SG\.[A-Za-z0-9_-]{16,64}\.[A-Za-z0-9_-]{16}"),
)

AFTER_BEARER = r"(?:[ \t]{1,8}|\r?\n[ \t]{1,64})"
"""Pattern of the space between ``Bearer`` and a token, which may be on an indented next line."""
BEARER = (
    rf"\bbearer{AFTER_BEARER}(?:\\*['\"])?"
    r"(?=[a-z._~+/-]{0,15}[0-9]|[a-z0-9._~+/-]{16})[a-z0-9._~+/-]{6}"
)
"""Pattern of the beginning of a token after ``Bearer``, for searches that ignore case. A token has
16 characters, or six and a digit among them: what follows is prose in "the bearer of news".
"""

FORMS: tuple[tuple[str, str], ...] = (
    ("a PEM block", _PEM_BLOCK),
    *((kind, _START + form) for kind, form in _TOKENS),
)
"""Kinds of secrets, and the patterns that find them."""

WHOLE_SECRETS = re.compile(
    f"{_PEM_BLOCK}{_REST_OF_A_PEM_BLOCK}|{_START}(?:{'|'.join(form for _, form in _TOKENS)}){_REST}"
)
"""Pattern of all forms, up to the ends of the secrets."""
