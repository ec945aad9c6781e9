"""Scanner for texts that look like secrets, for ``block_sensitive``.

The patterns match the shortest text that reveals a secret, never the longest. So the time of a
search is proportional to the length of the text.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from flowkit._text.secret_forms import BEARER, FORMS

_PATTERNS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile("".join(parts)))
    for kind, *parts in (
        *FORMS,
        ("a cloud access key", r"(?i)\b(?:AccountKey|SharedAccessKey)=[A-Za-z0-9+/]{20}"),
        ("a bearer token", f"(?i){BEARER}"),
        (
            "credentials in a header",
            r"(?i)\bauthorization['\"]?\s{0,8}[:=]\s{0,8}['\"]?",
            r"[a-z][a-z0-9-]{1,20}[ \t]{1,8}[a-z0-9+/=._~-]{8}",
        ),
        (
            "a session in a header",
            r"(?i)\bcookie['\"]?\s{0,8}:\s{0,8}['\"]?[a-z0-9._-]{1,64}=[^\s;'\"]{8}",
        ),
        (
            "a password in an address",
            r"\b[A-Za-z][A-Za-z0-9+.-]{1,20}://[^/\s:@]{0,64}:[^/\s@]{1,256}@",
        ),
    )
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SECRETS = (
    "password passwords passwd pwd passphrase secret secrets token tokens credential credentials"
    " apikey apikeys authorization cookie cookies"
)
_SECRET_WORDS = frozenset(_SECRETS.split())
_SECRET_KEYS = ("api", "access", "private", "secret", "account", "signing", "encryption")
_SECRET_PAIRS = frozenset((word, "key") for word in _SECRET_KEYS)
_HARMLESS_ENDINGS = frozenset(("name", "type", "url", "uri", "path", "file", "id"))
"""``secret_name`` and ``token_url`` name the place of a secret, not its value."""
_MIN_LENGTH = 8
_MIN_ENTROPY = 3.0
"""Bits per character.

Eight different characters have exactly this entropy, ``changeme`` and ``********`` have less.
"""

_KEY_MATERIAL = re.compile(
    r"(?=.{0,127}[a-z])(?=.{0,127}[A-Z])(?=.{0,127}[0-9])[A-Za-z0-9+/_-]{32,128}={0,2}"
)
_KEY_MATERIAL_ENTROPY = 4.5


def kind_of_secret(text: str, names: Sequence[str] = ()) -> str | None:
    """Return the kind of secret that ``text`` looks like under these names, or None."""
    for kind, pattern in _PATTERNS:
        if pattern.search(text):
            return kind
    if _KEY_MATERIAL.fullmatch(text) and _entropy(text) >= _KEY_MATERIAL_ENTROPY:
        return "a secret key"
    if len(text) >= _MIN_LENGTH and _promise_a_secret(names) and _entropy(text) >= _MIN_ENTROPY:
        return "a password or token"
    return None


def _promise_a_secret(names: Sequence[str]) -> bool:
    """Return whether the names suggest a secret: ``db_password``, ``apiKey``."""
    words = [[word.lower() for word in _WORD.findall(name)] for name in names]
    if not words or (words[-1] and words[-1][-1] in _HARMLESS_ENDINGS):
        return False
    return any(
        _SECRET_WORDS.intersection(name) or _SECRET_PAIRS.intersection(pairwise(name))
        for name in words
    )


def _entropy(text: str) -> float:
    """Return the Shannon entropy in bits per character."""
    return -sum(
        count / len(text) * math.log2(count / len(text)) for count in Counter(text).values()
    )
