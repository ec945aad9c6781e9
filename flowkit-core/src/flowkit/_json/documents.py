"""Readers of documents that users write: graphs, configurations and parameters.

The syntax is JSON, YAML or TOML.
"""

import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from flowkit._json.limits import MAX_DOCUMENT_BYTES, MAX_DOCUMENT_LEVELS, MAX_YAML_EVENTS
from flowkit._text.redaction import shortened

Syntax = Literal["JSON", "YAML", "TOML"]

SYNTAX_OF_SUFFIX: dict[str, Syntax] = {
    ".json": "JSON",
    ".toml": "TOML",
    ".yaml": "YAML",
    ".yml": "YAML",
}


class DocumentError(ValueError):
    """A document cannot be read. The message says where and why."""


def read_document(
    source: str | bytes,
    *,
    syntax: Syntax | None = None,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    max_levels: int = MAX_DOCUMENT_LEVELS,
) -> Any:
    """Return the value of a document: UTF-8 text, with or without a byte order mark.

    Without ``syntax``, a text that begins with ``{`` is JSON and any other is YAML. A key that
    occurs twice in one object is an error in every syntax.

    Raises:
        DocumentError: the document is too large, nested too deeply, not UTF-8, or not of its
            syntax.
    """
    if len(source) > max_bytes:
        raise DocumentError(
            f"the document of {len(source)} bytes is above the limit of {max_bytes}"
        )
    text = source.removeprefix("\ufeff") if isinstance(source, str) else _decoded(source)
    if syntax is None:
        syntax = "JSON" if text.lstrip().startswith("{") else "YAML"
    try:
        value = _READERS[syntax](text, max_levels)
    except RecursionError:
        raise _too_deep(max_levels) from None
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"the document is not {syntax}: {shortened(str(error), 400)}") from None
    if _is_deeper(value, max_levels):
        raise _too_deep(max_levels)
    return value


def read_document_file(path: Path) -> Any:
    """Return the value of the document in a file. Its suffix tells the syntax; the default is JSON.

    Raises:
        DocumentError: as of :func:`read_file` and :func:`read_document`.
    """
    return read_document(read_file(path), syntax=SYNTAX_OF_SUFFIX.get(path.suffix.lower(), "JSON"))


def read_file(path: Path, *, max_bytes: int = MAX_DOCUMENT_BYTES) -> bytes:
    """Return the bytes of a file.

    Raises:
        DocumentError: the file cannot be read, or is larger than ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:
        raise DocumentError(getattr(error, "strerror", None) or str(error)) from None
    if len(data) > max_bytes:
        raise DocumentError(f"the file is above the limit of {max_bytes} bytes")
    return data


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        advice = (
            "; it looks like UTF-16, save it as UTF-8"
            if data[:2] in (b"\xff\xfe", b"\xfe\xff")
            else ""
        )
        raise DocumentError(
            f"the document is not UTF-8: byte {error.start} cannot be read{advice}"
        ) from None


def _too_deep(max_levels: int) -> DocumentError:
    return DocumentError(
        f"values are nested more than {max_levels} levels deep; make the document flatter"
    )


def _is_deeper(value: Any, levels: int) -> bool:
    """Return whether lists and objects are nested more than ``levels`` deep.

    Shared parts are visited once per level.
    """
    level = {id(value): value}
    for _ in range(levels + 1):
        below: dict[int, Any] = {}
        for item in level.values():
            if isinstance(item, dict):
                below.update((id(part), part) for part in item.values())
            elif isinstance(item, list):
                below.update((id(part), part) for part in item)
        if not below:
            return False
        level = below
    return True


# ---------------------------------------------------------------- JSON and TOML


def _read_json(text: str, max_levels: int) -> Any:
    def no_constant(name: str) -> Any:
        # The reader gives no position. What it has read is JSON, so that each string is closed.
        found = _JSON_STRING_OR_CONSTANT.finditer(text)
        place = next(one.start() for one in found if one[0][0] != '"')
        raise json.JSONDecodeError(f"{name} is not a finite number", text, place)

    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=no_constant, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}, column {error.colno}: {error.msg}") from None


_JSON_STRING_OR_CONSTANT = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|-?Infinity|NaN', re.DOTALL)


def _integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError:
        raise ValueError(_too_many_digits()) from None


def _too_many_digits() -> str:
    return f"an integer has more than {sys.get_int_max_str_digits()} digits"


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) != len(pairs):
        raise ValueError(
            f"the key {shortened(repeated_key(key for key, _ in pairs))!r} is given twice in one"
            " object"
        )
    return item


def repeated_key(keys: Iterable[str]) -> str:
    """Return the first key that occurs a second time."""
    seen: set[str] = set()
    return next(key for key in keys if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _read_toml(text: str, max_levels: int) -> Any:
    # Reading a dotted key takes time that grows with the square of its parts.
    keys = _TOML_STRING_OR_COMMENT.sub(lambda found: "" if found[0][0] == "#" else "s", text)
    if re.search(rf"(?<![\w-])(?:[\w-]++[ \t]*+\.[ \t]*+){{{max_levels + 1}}}", keys):
        raise _too_deep(max_levels)
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        raise ValueError(_too_many_digits()) from None


_TOML_STRING_OR_COMMENT = re.compile(
    r"""
    "{3} .*? (?: (?<!\\) (?: \\\\ )*+ "{3} | \Z )
    | \'{3} .*? (?: \'{3} | \Z )
    | " (?: [^\\"\n] | \\. )*+ (?: " | \n | \\?\Z )
    | \' [^\'\n]*+ (?: \' | \n | \Z )
    | \# [^\n]*+
    """,
    re.VERBOSE | re.DOTALL,
)
"""String or comment of TOML. One that is not closed extends to the end of the line or document.

No repeat with ``*+`` contains a lookahead: before Python 3.11.5, such a repeat also consumes the
characters before a lookahead that fails (https://github.com/python/cpython/issues/100061).
"""


# ---------------------------------------------------------------- YAML


def _read_yaml(text: str, max_levels: int) -> Any:
    try:
        import yaml
    except ImportError:
        raise DocumentError(
            "the document is not JSON, and YAML needs PyYAML: pip install 'flowkit-core[cli]'"
        ) from None
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_shape(yaml.parse(text, Loader=base), yaml, max_levels)
        return yaml.load(text, Loader=_loader(base, yaml))  # noqa: S506 - a SafeLoader that accepts less
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise ValueError(f"{where}{shortened(error.problem or error.context or '', 300)}") from None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None


def _check_shape(events: Any, yaml: Any, max_levels: int) -> None:
    """Check the depth on the flat list of events.

    Building a deep document recurses in C, where no RecursionError stops it. An alias is one event
    here: the depth of its value is checked on the value that was built.
    """
    depth = 0
    for number, event in enumerate(events):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > max_levels:
            raise _too_deep(max_levels)
        if number > MAX_YAML_EVENTS:
            raise DocumentError(
                f"the document has more than {MAX_YAML_EVENTS} parts; write a document of this size"
                " as JSON"
            )


def _loader(base: Any, yaml: Any) -> Any:
    def refused(node: Any, problem: str) -> Exception:
        return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)  # type: ignore[no-any-return]

    def repeated(key: Any) -> Exception:
        return refused(key, f"the key {shortened(str(key.value))!r} is given twice in one object")

    class Loader(base):  # type: ignore[misc]
        """Refuses repeated keys and merge keys, and a scalar that does not fit its tag."""

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            try:
                return super().construct_object(node, deep)
            except yaml.YAMLError:
                raise
            except Exception as error:
                # For a tag that does not fit, PyYAML raises AttributeError, KeyError and others.
                tag = shortened(node.tag.replace("tag:yaml.org,2002:", "!!"))
                value = (
                    repr(shortened(node.value)) if isinstance(node.value, str) else f"a {node.id}"
                )
                raise refused(node, f"{value} is not a value of {tag}") from error

        def flatten_mapping(self, node: Any) -> None:
            seen: set[tuple[str, Any]] = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise refused(key, "merge keys (<<) are not supported; write the fields out")
                if isinstance(key.value, str):
                    if (key.tag, key.value) in seen:
                        raise repeated(key)
                    seen.add((key.tag, key.value))

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            found = super().construct_mapping(node, deep)
            if len({_key_in_json(key) for key in found}) < len(node.value):
                # Some keys differ as text only, such as 1, 0x1 and '1'.
                seen = set[Any]()
                for key, _ in node.value:
                    value = self.construct_object(key, deep=True)
                    if not seen.isdisjoint(forms := {value, _key_in_json(value)}):
                        raise repeated(key)
                    seen |= forms
            return found

    return Loader


def _key_in_json(key: Any) -> Any:
    """Return the text of a key in JSON. Keys of other types are returned unchanged."""
    return json.dumps(key) if key is None or isinstance(key, (bool, int, float)) else key


_READERS: dict[Syntax, Callable[[str, int], Any]] = {
    "JSON": _read_json,
    "TOML": _read_toml,
    "YAML": _read_yaml,
}


def off_of_yaml(value: Any) -> Any:
    """Return ``off`` for the False that YAML reads from it, and other values as they are."""
    return "off" if value is False else value
