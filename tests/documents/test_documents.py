"""One reader for graphs, configurations and parameters, with errors that name the place."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from flowkit import CoordinatorConfig, Graph
from flowkit._json.documents import DocumentError, Syntax, read_document
from flowkit.cli._loader import load_flow
from flowkit.cli._options import read_params
from flowkit.errors import ConfigError, GraphError
from flowkit.plugins import Plugins

SYNTAX = {"json": "JSON", "yaml": "YAML", "toml": "TOML"}


def graph(path: Path) -> Any:
    return load_flow(str(path), Plugins(())).graph.plan.nodes[0].io.input_inline


def configuration(path: Path) -> Any:
    return CoordinatorConfig.load(path).options["any"]["value"]


def parameters(path: Path) -> Any:
    found = read_params(f"@{path}")
    assert found is not None
    return found["value"]


AROUND: dict[tuple[Callable[[Path], Any], str], str] = {
    (graph, "json"): '{"nodes": [{"node_id": "a", "type": "h", "io": {"input_inline": %s}}]}',
    (graph, "yaml"): "nodes:\n- {node_id: a, type: h, io: {input_inline: %s}}\n",
    (configuration, "json"): '{"options": {"any": {"value": %s}}}',
    (configuration, "yaml"): "options: {any: {value: %s}}\n",
    (configuration, "toml"): "options.any.value = %s\n",
    (parameters, "json"): '{"value": %s}',
    (parameters, "yaml"): "value: %s\n",
    (parameters, "toml"): "value = %s\n",
}
ENTRANCES = [
    pytest.param(read, syntax, id=f"{read.__name__} in {syntax}") for read, syntax in AROUND
]
YAML_ENTRANCES = [
    pytest.param(read, id=read.__name__) for read, syntax in AROUND if syntax == "yaml"
]


def document(
    folder: Path, read: Callable[[Path], Any], syntax: str, value: str, encoding: str = "utf-8"
) -> Path:
    path = folder / f"document.{syntax}"
    path.write_bytes((AROUND[read, syntax] % value).encode(encoding))
    return path


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises((GraphError, ConfigError, typer.BadParameter)) as caught:
        read(path)
    return str(caught.value)


@pytest.mark.parametrize(("read", "syntax"), ENTRANCES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_document_is_utf_8_with_or_without_a_byte_order_mark(
    tmp_path: Path, read: Any, syntax: str, encoding: str
) -> None:
    assert read(document(tmp_path, read, syntax, '"größe"', encoding)) == "größe"


@pytest.mark.parametrize(("read", "syntax"), ENTRANCES)
def test_another_encoding_is_refused_with_the_byte(tmp_path: Path, read: Any, syntax: str) -> None:
    assert "the document is not UTF-8: byte " in refusal(
        read, document(tmp_path, read, syntax, '"größe"', "latin-1")
    )
    said = refusal(read, document(tmp_path, read, syntax, '"x"', "utf-16"))
    assert (
        "the document is not UTF-8: byte 0 cannot be read; it looks like UTF-16, save it as UTF-8"
        in said
    )


@pytest.mark.parametrize(("read", "syntax"), ENTRANCES)
@pytest.mark.parametrize("depth", [40, 50_000])
def test_deep_nesting_is_refused(tmp_path: Path, read: Any, syntax: str, depth: int) -> None:
    said = refusal(read, document(tmp_path, read, syntax, "[" * depth + "1" + "]" * depth))
    assert "levels deep" in said or "exceeded maximum nesting depth" in said


@pytest.mark.parametrize(
    ("read", "syntax", "value"),
    [
        *[(read, syntax, '{"k": 1, "k": 2}') for read, syntax in AROUND if syntax != "toml"],
        *[(read, syntax, "{k = 1, k = 2}") for read, syntax in AROUND if syntax == "toml"],
    ],
)
def test_a_key_that_is_given_twice_is_refused(
    tmp_path: Path, read: Any, syntax: str, value: str
) -> None:
    said = refusal(read, document(tmp_path, read, syntax, value))
    assert f"the document is not {SYNTAX[syntax]}" in said
    assert "k" in said


@pytest.mark.parametrize(("read", "syntax"), ENTRANCES)
def test_a_document_that_breaks_off_is_refused_with_the_line(
    tmp_path: Path, read: Any, syntax: str
) -> None:
    said = refusal(read, document(tmp_path, read, syntax, "[1, "))
    assert f"the document is not {SYNTAX[syntax]}" in said
    assert "line " in said or "at end of document" in said


@pytest.mark.parametrize(("read", "syntax"), ENTRANCES)
def test_a_document_above_the_limit_in_bytes_is_refused(
    tmp_path: Path, read: Any, syntax: str
) -> None:
    assert "above the limit of 8388608" in refusal(
        read, document(tmp_path, read, syntax, f'"{"x" * 8_400_000}"')
    )


@pytest.mark.parametrize("read", YAML_ENTRANCES)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ('!!timestamp "soon"', "'soon' is not a value of !!timestamp"),
        ("!!timestamp 2026-13-45", "'2026-13-45' is not a value of !!timestamp"),
        ("2026-13-45", "'2026-13-45' is not a value of !!timestamp"),
        ('!!bool "maybe"', "'maybe' is not a value of !!bool"),
        ('!!int ""', "'' is not a value of !!int"),
        ("0x_", "'0x_' is not a value of !!int"),
        ('!!float ""', "'' is not a value of !!float"),
        ("!!binary é", "failed to convert base64 data into ascii"),
        ("!!int [1]", "expected a scalar node, but found sequence"),
        ("!!map 3", "expected a mapping node, but found scalar"),
        ("!!omap [a]", "expected a mapping of length 1, but found scalar"),
        ("!person {name: x}", "could not determine a constructor for the tag '!person'"),
        ("{[1]: 2}", "found unhashable key"),
        ("&a [*a]", "levels deep"),
        ("{<<: {a: 1}}", "merge keys (<<) are not supported; write the fields out"),
    ],
)
def test_a_tag_that_does_not_fit_its_value_is_refused_with_the_place(
    tmp_path: Path, read: Any, value: str, sentence: str
) -> None:
    said = refusal(read, document(tmp_path, read, "yaml", value))
    assert sentence in said
    assert "levels deep" in said or "the document is not YAML: line " in said


def test_a_configuration_of_numbered_fields_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "document.yaml"
    path.write_text("1: x\n")
    assert refusal(configuration, path) == f"1 (from {path}): Keys should be strings"


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
def test_a_number_that_is_not_finite_is_refused_with_its_place(name: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(f'{{"NaN \\" Infinity": 1,\n "a": [1, {name}, NaN]}}', syntax="JSON")
    where = f"line 2, column 11: {name} is not a finite number"
    assert str(caught.value) == f"the document is not JSON: {where}"


@pytest.mark.parametrize(
    ("syntax", "text"), [("JSON", '{"a": -%s}'), ("TOML", "a = %s"), ("YAML", "a: %s")]
)
def test_an_integer_of_too_many_digits_is_refused_in_plain_words(syntax: Syntax, text: str) -> None:
    assert read_document(text % ("1" * 4_000), syntax=syntax)
    with pytest.raises(DocumentError) as caught:
        read_document(text % ("1" * 4_301), syntax=syntax)
    assert str(caught.value).startswith(f"the document is not {syntax}: ")
    assert re.search(
        "an integer has more than 4300 digits|1…' is not a value of !!int", str(caught.value)
    )


def test_parameters_in_the_command_line_are_json() -> None:
    assert read_params('{"a": 1}') == {"a": 1}
    for text, sentence in (
        ("a: 1", "not JSON"),
        ("[1]", "expected an object, not a list"),
        ('{"a": 1, "a": 2}', "given twice"),
    ):
        with pytest.raises(typer.BadParameter, match=sentence):
            read_params(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for read in (graph, configuration, parameters):
        assert "No such file or directory" in refusal(read, tmp_path / "none.json")
        assert "Is a directory" in refusal(read, _folder(tmp_path / f"{read.__name__}.json"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_suffix_of_a_file_says_its_syntax(tmp_path: Path) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text("{nodes: [{node_id: a, type: h}]}")
    assert load_flow(str(flow), Plugins(())).graph.plan.ids == ("a",)
    flow = tmp_path / "flow.json"
    flow.write_text("nodes: [{node_id: a, type: h}]")
    assert "the document is not JSON" in refusal(graph, flow)


def test_a_graph_as_text_is_read_like_a_file() -> None:
    with pytest.raises(GraphError, match="'maybe' is not a value of !!bool"):
        Graph.parse('nodes: [{node_id: a, type: h, io: {input_inline: !!bool "maybe"}}]')
    assert Graph.parse(json.dumps({"nodes": [{"node_id": "a", "type": "h"}]})).plan.ids == ("a",)


@pytest.mark.parametrize("read", YAML_ENTRANCES)
@pytest.mark.parametrize(
    "keys",
    [
        "0x1: a, 1: b",
        "1: a, '1': b",
        "!!str 1: a, '1': b",
        "yes: a, 'true': b",
        "~: a, null: b",
        "1: a, 1.0: b",
    ],
)
def test_keys_that_differ_as_text_alone_are_repeated(tmp_path: Path, read: Any, keys: str) -> None:
    assert "is given twice in one object" in refusal(
        read, document(tmp_path, read, "yaml", f"{{x: {{{keys}}}}}")
    )


TOML_KEYS: dict[str, str] = {
    "a key": "{dots} = 1",
    "a header": "[{dots}]\nx = 1",
    "a header of a list": "[[{dots}]]\nx = 1",
    "an inline table": "x = {{{dots} = 1}}",
    "quoted parts": "\"a\".'b'.{dots} = 1",
    "after texts": """x = 'a' # '\ny = "\\""\nz = \'\'\'#"\'\'\'\n{dots} = 1""",
    "after a text that ends with a backslash": 'x = """\\\\"""\n{dots} = 1',
}


@pytest.mark.parametrize("text", TOML_KEYS.values(), ids=TOML_KEYS)
@pytest.mark.parametrize("between", [".", " . "])
def test_a_dotted_key_of_too_many_parts_is_refused_before_it_is_read(
    text: str, between: str
) -> None:
    """Parsing a key of 50,000 parts would take minutes."""
    with pytest.raises(DocumentError, match="nested more than 32 levels deep"):
        read_document(text.format(dots=between.join(["a"] * 50_000)), syntax="TOML")


def test_dots_in_texts_and_comments_are_no_levels() -> None:
    dots = "a." * 100
    text = (
        f"""a.b = '{dots}' # {dots}\nc = "{dots}\\"{dots}"\n"""
        f"""d = \'\'\'\n{dots}'{dots}\n\'\'\'\ne = 1.5\n"""
        f'''f = """\n{dots}"{dots}\\"""{dots}\n\\\\"""\n'''
    )
    assert read_document(text, syntax="TOML").keys() == {"a", "c", "d", "e", "f"}


LARGE = "x" * 1_000_000
LONG_NAMES: dict[str, Callable[[], Any]] = {
    "a repeated key in JSON": lambda: Graph.parse(f'{{"{LARGE}": 1, "{LARGE}": 2}}'),
    "a repeated key in YAML": lambda: Graph.parse(f"{{? {LARGE} : 1, ? {LARGE} : 2}}"),
    "a tag": lambda: Graph.parse(f"nodes: !{LARGE[:100_000]} x"),
    "an alias": lambda: Graph.parse(f"nodes: *{LARGE[:100_000]}"),
    "a class": lambda: Graph.parse({"nodes": [type(LARGE, (), {})()]}),
    "a field": lambda: Graph.parse({"nodes": [], LARGE: 1}),
    "a field of a configuration": lambda: CoordinatorConfig.load(overrides={LARGE: 1}),
    "many fields of a configuration": lambda: CoordinatorConfig.load(
        overrides={f"x{n}": 1 for n in range(10_000)}
    ),
    "a name of an option": lambda: CoordinatorConfig.load(overrides={"options": {LARGE: 1}}),
    "an error of a class": lambda: Graph.parse({"nodes": [Raising()]}),
    "many faults": lambda: Graph.parse(
        {"nodes": [{"node_id": f"{n}", "type": "h", LARGE[: n + 1000]: 1} for n in range(100)]}
    ),
}


@dataclass
class Raising:
    x: int = field(init=False)

    def __getattr__(self, name: str) -> Any:
        raise type(LARGE, (Exception,), {})(LARGE)


@pytest.mark.parametrize("read", LONG_NAMES.values(), ids=LONG_NAMES)
def test_an_error_is_bounded_however_long_the_names_in_it_are(read: Callable[[], Any]) -> None:
    with pytest.raises((GraphError, ConfigError)) as caught:
        read()
    assert len(str(caught.value)) < 10_000
