"""Convert the CEL conformance suite to ``tests/expressions/conformance.json``.

``go mod download -json cel.dev/expr@v0.26.0`` fetches the suite and prints its folder; ``python
tools/cel_conformance.py FOLDER`` reads it. The suite is Copyright Google LLC, under the Apache
License 2.0. Cases outside of the supported subset are left out and counted by reason.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "tests" / "expressions" / "conformance.json"
FILES = (
    "basic",
    "comparisons",
    "conversions",
    "fields",
    "fp_math",
    "integer_math",
    "lists",
    "logic",
    "macros",
    "parse",
    "plumbing",
    "string",
    "string_ext",
    "timestamps",
)
OTHER_FILES = {
    "protocol buffers": "dynamic enums proto2 proto2_ext proto3 wrappers",
    "extensions that are not part of the subset": (
        "bindings_ext block_ext encoders_ext lists_ext math_ext network_ext optionals sets_ext"
    ),
    "macros with two variables": "macros2",
    "static types": "type_deduction",
    "namespaces and containers": "namespace",
    "unknown values": "unknowns",
}
OUTSIDE = {
    "protocol buffers": re.compile(
        r"TestAllTypes|google\.protobuf\.(?!Timestamp|Duration)|TestRequired|NestedTestAll|GlobalEnum|Any\{"
    ),
    "message literals": re.compile(r"(?<![\w\s(\[,:?|&!=<>+*/%-])\s*\{|[A-Za-z_][\w.]*\{"),
    "optional values": re.compile(r"\.\?|\[\?|optional\."),
    "format(), quote() and reverse()": re.compile(r"\.format\(|strings\.quote|\.reverse\("),
    "names with a leading dot": re.compile(r"(?:^|[\s(\[,])\.[A-Za-z]"),
    "two variables": re.compile(r"transform(?:List|Map)|\.(?:all|exists|existsOne)\(\w+, \w+,"),
}
_TOKEN = re.compile(
    r"\s+|#[^\n]*|(\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*')|(\[[\w./]+\]|[\w.+-]+)|([{}:<>,;\[\]])"
)

_PIECE = re.compile(
    r"\\(?:(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|([xX][0-9a-fA-F]{1,2})|([0-7]{1,3})|(.))|([^\\]+)",
    re.DOTALL,
)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def tokens(text: str) -> Iterator[str]:
    place = 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        assert match is not None, text[place : place + 60]
        place = match.end()
        if match[0].strip() and match[0][0] != "#":
            yield match[0]


def message(stream: list[str]) -> dict[str, list[Any]]:
    """Parse a message in text format and return the values of each field."""
    fields: dict[str, list[Any]] = {}
    while stream and stream[-1] != "}":
        name = stream.pop()
        if stream[-1] == ":":
            stream.pop()
        values = []
        if stream[-1] == "[":
            stream.pop()
            while stream[-1] != "]":
                values.append(value(stream))
                if stream[-1] == ",":
                    stream.pop()
            stream.pop()
        else:
            values.append(value(stream))
        fields.setdefault(name, []).extend(values)
        if stream and stream[-1] in ",;":
            stream.pop()
    return fields


def value(stream: list[str]) -> Any:
    token = stream.pop()
    if token == "{":
        fields = message(stream)
        stream.pop()
        return fields
    if token[0] not in "\"'":
        return token
    data = string(token)
    while stream and stream[-1][0] in "\"'":
        data += string(stream.pop())
    return data


def string(token: str) -> bytes:
    """Decode a string of the text format, where escapes stand for bytes except ``\\u``."""
    return b"".join(_piece(match) for match in _PIECE.finditer(token[1:-1]))


def _piece(match: re.Match[str]) -> bytes:
    code, byte, octal, simple, text = match.groups()
    if code:
        return chr(int(code[1:], 16)).encode("utf-8", "surrogatepass")
    if byte or octal:
        return bytes([int(byte[1:], 16) if byte else int(octal, 8)])
    return _SIMPLE.get(simple, simple).encode() if simple else text.encode()


def plain(found: dict[str, list[Any]]) -> Any:
    """Return a value as JSON: its type and its content."""
    ((name, values),) = found.items()
    one = values[0]
    match name:
        case "null_value":
            return None
        case "bool_value":
            return one == "true"
        case "int64_value":
            return {"int": str(int(one, 0))}
        case "uint64_value":
            return {"uint": str(int(one, 0))}
        case "double_value":
            return {"double": one}
        case "string_value":
            return one.decode()
        case "bytes_value":
            return {"bytes": one.hex()}
        case "type_value":
            return {"type": one.decode()}
        case "list_value":
            return {"list": [plain(item) for item in one.get("values", [])]}
        case "map_value":
            return {
                "map": [
                    [plain(entry["key"][0]), plain(entry["value"][0])]
                    for entry in one.get("entries", [])
                ]
            }
        case "object_value":
            ((kind, (content,)),) = one.items()
            if kind.endswith(("google.protobuf.Timestamp]", "google.protobuf.Duration]")):
                nanos = int(content.get("seconds", ["0"])[0]) * 10**9 + int(
                    content.get("nanos", ["0"])[0]
                )
                return {kind.rpartition(".")[2][:-1].lower(): str(nanos)}
    raise ValueError(name)


def case(test: dict[str, list[Any]]) -> list[Any] | str:
    """Return expression, bindings and value of a test, or the reason why it is left out.

    The value ``["error"]`` stands for an error.
    """
    expression = test["expr"][0].decode()
    for reason, pattern in OUTSIDE.items():
        if pattern.search(re.sub(r"'[^']*'|\"[^\"]*\"", "''", expression)):
            return reason
    if (
        "container" in test
        or "disable_macros" in test
        or "typed_result" in test
        or "check_only" in test
    ):
        return "containers, checks and disabled macros"
    if "any_eval_errors" in test or "unknown" in test:
        return "unknown values"
    bindings = {}
    try:
        for binding in test.get("bindings", []):
            bindings[binding["key"][0].decode()] = plain(binding["value"][0]["value"][0])
        if "eval_error" in test:
            return [expression, bindings, ["error"]]
        return [expression, bindings, plain(test["value"][0]) if "value" in test else True]
    except ValueError:
        return "protocol buffers"


def main() -> None:
    folder = Path(sys.argv[1]) / "tests" / "simple" / "testdata"
    cases: dict[str, Any] = {}
    left_out: Counter[str] = Counter()
    for path in sorted(folder.glob("*.textproto")):
        document = message(list(tokens(path.read_text(encoding="utf-8")))[::-1])
        for section in document.get("section", []):
            for test in section.get("test", []):
                reason = next(
                    (reason for reason, files in OTHER_FILES.items() if path.stem in files.split()),
                    None,
                )
                found = reason or case(test)
                if isinstance(found, str):
                    left_out[found] += 1
                else:
                    cases[
                        f"{path.stem}/{section['name'][0].decode()}/{test['name'][0].decode()}"
                    ] = found
    source = (
        "cel.dev/expr v0.26.0, tests/simple/testdata; Copyright Google LLC; Apache License 2.0;"
        " converted by tools/cel_conformance.py"
    )
    lines = ",\n".join(
        f"{json.dumps(name)}: {json.dumps(found, ensure_ascii=False)}"
        for name, found in cases.items()
    )
    head = (
        f'{{"source": {json.dumps(source)},\n"left_out":'
        f' {json.dumps(dict(sorted(left_out.items())))},\n"cases": {{\n'
    )
    TARGET.write_text(f"{head}{lines}\n}}}}\n", encoding="utf-8")
    print(f"{len(cases)} cases; left out: {dict(left_out)}")


if __name__ == "__main__":
    main()
