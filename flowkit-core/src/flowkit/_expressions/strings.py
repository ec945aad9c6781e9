"""Functions on strings. Positions count characters from 0."""

from typing import Any

from flowkit._expressions.budget import Budget
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.patterns import matches
from flowkit._expressions.text_search import (
    LONG_PART,
    charge_search,
    count_at_most,
    find,
    find_last,
    split,
)
from flowkit._expressions.values import Overloads

_WHITE_SPACE = " \t\n\v\f\r\x85\u1680\u2028\u2029\u202f\u205f\u3000\xa0" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def _contains(budget: Budget, text: str, part: str) -> bool:
    charge_search(budget, text, part)
    return find(text, part, 0) >= 0


def _starts_with(budget: Budget, text: str, part: str) -> bool:
    budget.handle_text(len(part))
    return text.startswith(part)


def _ends_with(budget: Budget, text: str, part: str) -> bool:
    budget.handle_text(len(part))
    return text.endswith(part)


def _lower_ascii(budget: Budget, text: str) -> str:
    return _bytes_of(budget, text).lower().decode("utf-8", "surrogatepass")


def _upper_ascii(budget: Budget, text: str) -> str:
    return _bytes_of(budget, text).upper().decode("utf-8", "surrogatepass")


def _bytes_of(budget: Budget, text: str) -> bytes:
    """Return the text in UTF-8. For bytes, Python changes the case of ASCII letters only."""
    budget.scan_text(len(text))
    budget.make_text(len(text))
    return text.encode("utf-8", "surrogatepass")


def _trim(budget: Budget, text: str) -> str:
    budget.scan_text(len(text))
    budget.spend(len(text) // 32)
    budget.make_text(len(text))
    return text.strip(_WHITE_SPACE)


def _split(budget: Budget, text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if limit == 1:
        return [text]
    most = limit - 1 if limit > 0 else len(text)
    charge_search(budget, text, separator)
    count = count_at_most(text, separator) + 1 if separator else len(text)
    budget.make_elements(min(count, most + 1))
    budget.make_text(len(text))
    if separator:
        return split(text, separator, most)
    return list(text) if limit < 0 or limit >= len(text) else [*text[:most], text[most:]]


def _join(budget: Budget, items: list[Any], separator: str = "") -> str:
    budget.spend(len(items))
    if any(type(item) is not str for item in items):
        raise EvaluationError("join() needs a list of strings")
    budget.make_text(sum(map(len, items)) + len(separator) * len(items))
    return separator.join(items)


def _replace(budget: Budget, text: str, old: str, new: str, limit: int = -1) -> str:
    charge_search(budget, text, old)
    count = count_at_most(text, old)
    if limit >= 0:
        count = min(count, limit)
    budget.spend(count)
    budget.make_text(len(text) + count * max(len(new) - len(old), 0))
    return (
        text.replace(old, new, count)
        if len(old) <= LONG_PART
        else new.join(split(text, old, count))
    )


def _index_of(budget: Budget, text: str, part: str, start: int = 0) -> int:
    _check_place(text, start)
    charge_search(budget, text, part)
    return find(text, part, start)


def _last_index_of(budget: Budget, text: str, part: str, start: int | None = None) -> int:
    if start is not None:
        _check_place(text, start)
        text = text[: start + len(part)]
    charge_search(budget, text, part)
    budget.make_text(len(text) + len(part))
    return find_last(text, part)


def _substring(budget: Budget, text: str, start: int, end: int | None = None) -> str:
    _check_place(text, start)
    if end is not None:
        _check_place(text, end)
        if end < start:
            raise EvaluationError(f"substring() ends at {end}, before its start at {start}")
    budget.make_text(len(text) - start if end is None else end - start)
    return text[start:end]


def _char_at(budget: Budget, text: str, place: int) -> str:
    _check_place(text, place)
    return text[place : place + 1]


def _check_place(text: str, place: int) -> None:
    if not 0 <= place <= len(text):
        raise EvaluationError(f"position {place} is out of range for {len(text)} characters")


METHODS: dict[str, Overloads] = {
    "contains": {(str, str): _contains},
    "startsWith": {(str, str): _starts_with},
    "endsWith": {(str, str): _ends_with},
    "matches": {(str, str): matches},
    "lowerAscii": {(str,): _lower_ascii},
    "upperAscii": {(str,): _upper_ascii},
    "trim": {(str,): _trim},
    "split": {(str, str): _split, (str, str, int): _split},
    "join": {(list,): _join, (list, str): _join},
    "replace": {(str, str, str): _replace, (str, str, str, int): _replace},
    "indexOf": {(str, str): _index_of, (str, str, int): _index_of},
    "lastIndexOf": {(str, str): _last_index_of, (str, str, int): _last_index_of},
    "substring": {(str, int): _substring, (str, int, int): _substring},
    "charAt": {(str, int): _char_at},
}
