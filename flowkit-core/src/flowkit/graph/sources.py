"""From text to a value: JSON, or YAML where PyYAML is installed."""

import json
from typing import Any

from flowkit.errors import Fault, GraphError
from flowkit.graph.limits import GraphLimits, levels

MAX_YAML_EVENTS = 500_000


def read_text(source: str | bytes, limits: GraphLimits) -> Any:
    """The value that a text stands for. Text that begins with ``{`` is JSON, any other is YAML.

    Raises:
        GraphError: the text is too large, or is neither.
    """
    if len(source) > limits.max_bytes:
        raise _refused(f"the document of {len(source)} bytes is above the limit of {limits.max_bytes}")
    if isinstance(source, str):
        text = source.removeprefix("\ufeff")
    else:
        try:
            text = source.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise _refused(f"the document is not UTF-8: byte {error.start} cannot be read") from None
    try:
        return _read_json(text) if text.lstrip().startswith("{") else _read_yaml(text, limits)
    except RecursionError:
        raise _refused(f"values stand in each other more than {levels(limits)} levels deep; make it flatter") from None


def _read_json(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _refused(f"the document is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError as error:
        raise _refused(f"the document is not JSON: {error}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    item = dict(pairs)
    if len(item) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is given twice in one object")
    return item


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a finite number")


def _read_yaml(text: str, limits: GraphLimits) -> Any:
    try:
        import yaml
    except ImportError:
        raise _refused("the document is not JSON, and YAML needs PyYAML: pip install 'flowkit-core[cli]'") from None
    base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_shape(yaml.parse(text, Loader=base), yaml, limits)
        return yaml.load(text, Loader=_loader(base))  # noqa: S506 - it is a SafeLoader with less in it
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        raise _refused(f"the document is not YAML: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise _refused(f"the document is not YAML: {error}") from None


def _check_shape(events: Any, yaml: Any, limits: GraphLimits) -> None:
    """Building a deep document recurses in C, past any RecursionError, so depth is measured on the flat list of events."""
    depth = 0
    for number, event in enumerate(events):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > levels(limits):
            raise _refused(f"values stand in each other more than {levels(limits)} levels deep; make it flatter")
        if number > MAX_YAML_EVENTS:
            raise _refused(f"the document has more than {MAX_YAML_EVENTS} parts; write a graph of this size as JSON")


def _loader(base: Any) -> Any:
    class Loader(base):  # type: ignore[misc]
        """Refuses what YAML would silently overwrite or blow up: keys given twice, and merge keys."""

        def flatten_mapping(self, node: Any) -> None:
            seen: set[tuple[str, Any]] = set()
            for key, _ in node.value:
                if key.tag == "tag:yaml.org,2002:merge":
                    raise ValueError(f"line {key.start_mark.line + 1}: merge keys (<<) are not supported; write the fields out")
                if isinstance(key.value, str):
                    if (key.tag, key.value) in seen:
                        raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value!r} is given twice in one object")
                    seen.add((key.tag, key.value))

    return Loader


def _refused(message: str) -> GraphError:
    return GraphError([Fault(None, message)])
