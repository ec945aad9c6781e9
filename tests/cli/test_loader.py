"""Sources of flows and handlers, and the errors for missing ones."""

from pathlib import Path
from typing import Any

import pytest

from flowkit.cli._embedded import handlers_for
from flowkit.cli._loader import LoadedFlow, load_flow, load_handlers
from flowkit.errors import ConfigError
from flowkit.graph import Graph
from flowkit.plugins import Plugins

FLOW = """
from flowkit import Graph, flow
from flowkit.worker import handler

@handler("one")
async def first(item): ...

@handler("two")
async def second(item): ...

@flow
def pair(g):
    g.node("a", "one") >> g.node("b", "two")
"""


@pytest.fixture
def plugins() -> Plugins:
    return Plugins()


def nodes(flow: LoadedFlow) -> tuple[str, ...]:
    return flow.graph.plan.ids


def test_a_python_file_gives_its_only_flow_and_its_handlers(folder: Path, plugins: Plugins):
    (folder / "pair.py").write_text(FLOW)
    flow = load_flow("pair.py", plugins)
    assert nodes(flow) == ("a", "b")
    assert sorted(flow.handlers) == ["one", "two"]
    assert flow.roles == {"one": ["a"], "two": ["b"]}


def test_what_a_file_calls_handlers_goes_before_its_functions(folder: Path, plugins: Plugins):
    (folder / "pair.py").write_text(FLOW + "\nhandlers = {'one': second}\n")
    assert list(load_flow("pair.py", plugins).handlers) == ["one"]


def test_one_of_several_flows_is_chosen_by_name(folder: Path, plugins: Plugins):
    (folder / "pair.py").write_text(FLOW + "\nother = Graph()\nother.node('x', 'one')\n")
    assert nodes(load_flow("pair.py:other", plugins)) == ("x",)
    with pytest.raises(
        ConfigError,
        match=r"several flows; choose one with pair\.py:NAME, where NAME is other or pair",
    ):
        load_flow("pair.py", plugins)


INNER = """
from flowkit import Graph, flow, loop, subflow
from flowkit.worker import handler

@handler("one")
async def one(item: int) -> int: ...

@flow
def inner(item: int) -> object:
    return one(item)
"""


@pytest.mark.parametrize(
    "outer",
    [
        "@flow\ndef outer(): return subflow(inner, 1)",
        "@flow\ndef outer(): return loop(inner, 1, until='true', max_iterations=2)",
        "@flow\ndef outer(): return inner.map([1, 2])",
        (
            "io = {'graph': inner.build_graph().to_dict(), 'params': {'item': 1}}\n"
            "outer = Graph()\nouter.node('n', 'subflow', io=io)"
        ),
        (
            "@flow\ndef middle(item: int): return subflow(inner, item)\n"
            "@flow\ndef outer(): return subflow(middle, 1)"
        ),
        (
            "@flow\ndef drawn(g): g.node('a', 'one')\n"
            "@flow\ndef outer(): return subflow(inner, 1), subflow(drawn)"
        ),
    ],
    ids=["sub-flow", "loop", "map", "graph", "two levels", "two inner flows"],
)
def test_the_flow_that_contains_all_others_needs_no_name(
    folder: Path, plugins: Plugins, outer: str
):
    (folder / "nested.py").write_text(f"{INNER}\n{outer}\n")
    graph = load_flow("nested.py", plugins).graph.to_dict()
    assert graph == load_flow("nested.py:outer", plugins).graph.to_dict()
    assert nodes(load_flow("nested.py:inner", plugins)) == ("one",)


@pytest.mark.parametrize(
    "more",
    [
        "@flow\ndef other(): return one(1)",
        "@flow\ndef other(): return subflow(inner, wrong=1)",
        "@flow\ndef other(): return 1 / 0",
    ],
    ids=["two outer flows", "a faulty flow", "a broken flow"],
)
def test_a_flow_must_be_named_if_none_contains_all_others(
    folder: Path, plugins: Plugins, more: str
):
    outer = "@flow\ndef outer(): return subflow(inner, 1)"
    (folder / "nested.py").write_text(f"{INNER}\n{outer}\n{more}\n")
    with pytest.raises(ConfigError, match="where NAME is inner or other or outer"):
        load_flow("nested.py", plugins)


@pytest.mark.parametrize("source", ["nested.py", "nested.py:outer"])
def test_a_flow_is_built_once(folder: Path, plugins: Plugins, source: str):
    built = folder / "built"
    outer = f"@flow\ndef outer():\n    with open({str(built)!r}, 'a') as file: file.write('x')\n"
    (folder / "nested.py").write_text(f"{INNER}\n{outer}    return subflow(inner, 1)\n")
    load_flow(source, plugins)
    assert built.read_text() == "x"


def test_a_flow_in_a_module_of_the_current_directory_is_found(folder: Path, plugins: Plugins):
    (folder / "pairs_of_mine.py").write_text(FLOW)
    assert nodes(load_flow("pairs_of_mine:pair", plugins)) == ("a", "b")


def test_a_file_imports_what_lies_beside_it(folder: Path, plugins: Plugins):
    (folder / "sub").mkdir()
    (folder / "sub" / "names_beside.py").write_text("NAME = 'beside'")
    (folder / "sub" / "f.py").write_text(
        "import names_beside\nfrom flowkit import Graph\ng = Graph()\ng.node(names_beside.NAME,"
        " 't')\n"
    )
    assert nodes(load_flow("sub/f.py", plugins)) == ("beside",)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("nix.yaml", "nix.yaml: No such file"),
        ("nix.py", "nix.py: file not found"),
        ("nix_module:flow", "module 'nix_module' not found"),
        (
            "pair.txt",
            "pair.txt: expected a file ending in .json, .yaml, .yml or .py, or module:attr",
        ),
        ("pair.py:nix", "pair.py:nix: pair has no attribute 'nix'"),
        ("pair.py:first", "first must be a @flow function or a graph, not FunctionHandler"),
        ("empty.py", "empty.py: contains no @flow function and no Graph"),
        ("broken.py", "broken.py, line 2: ZeroDivisionError: division by zero"),
        ("typo.py", "typo.py, line 1: "),
        ("needs.py", "needs.py, line 1: ModuleNotFoundError: No module named 'not_installed'"),
    ],
)
def test_what_cannot_be_loaded_is_named(
    folder: Path, plugins: Plugins, source: str, complaint: str
):
    (folder / "pair.py").write_text(FLOW)
    (folder / "pair.txt").write_text("")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "broken.py").write_text("x = 1\nx / 0\n")
    (folder / "typo.py").write_text("def (\n")
    (folder / "needs.py").write_text("import not_installed\n")
    with pytest.raises(ConfigError) as caught:
        load_flow(source, plugins)
    assert complaint in str(caught.value)


def test_handlers_of_several_places_are_put_together(folder: Path):
    (folder / "ones_of_mine.py").write_text(FLOW)
    (folder / "more_of_mine.py").write_text(
        "from flowkit.worker import Handler, handler\nclass H(Handler): ...\nby_role = {'three':"
        " H}\n@handler('four')\ndef four(): ...\n"
    )
    assert sorted(load_handlers(["ones_of_mine", "more_of_mine:by_role", "more_of_mine:four"])) == [
        "four",
        "one",
        "three",
        "two",
    ]


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        (["pairs:first", "pairs:first"], "role 'one' already has a handler"),
        (["pairs:plain"], "plain has no role"),
        (["pairs:nothing"], "contains no handler"),
        (["pairs:twice"], "role 'one' has two handlers"),
        (["pairs:nix"], "pairs has no attribute 'nix'"),
    ],
)
def test_wrong_handlers_are_named(folder: Path, sources: list[str], complaint: str):
    more = (
        "\ndef plain(item): ...\nnothing = []\n@handler('one')\ndef another(): ...\ntwice = [first,"
        " another]\nhandlers = []\n"
    )
    (folder / "pairs.py").write_text(FLOW + more)
    with pytest.raises(ConfigError, match=complaint):
        load_handlers(sources)


def a_flow(*roles: str) -> LoadedFlow:
    graph = Graph()
    for number, role in enumerate(roles):
        graph.node(f"n{number}", role)
    return LoadedFlow(graph, {"own": "the flow's"})


def test_given_handlers_go_before_those_of_the_flow(plugins: Plugins):
    assert handlers_for(a_flow("own"), {"own": "given"}, plugins) == {"own": "given"}
    assert handlers_for(a_flow("own"), {"other": "given"}, plugins) == {"own": "the flow's"}


def test_a_handler_of_a_plugin_serves_a_role_without_another_handler():
    async def offered(item: Any) -> None: ...

    class Plugin:
        def flowkit_register_handlers(self, register):
            register("offered", offered)
            register("own", offered)

    assert handlers_for(a_flow("own", "offered"), {}, Plugins([Plugin()])) == {
        "own": "the flow's",
        "offered": offered,
    }


def test_roles_without_a_handler_are_named_with_their_nodes(plugins: Plugins):
    with pytest.raises(
        ConfigError,
        match=(
            r"no handler for role 'x' \(nodes 'n0', 'n1'\), role 'y' \(node 'n2'\); use"
            r" --handlers"
        ),
    ):
        handlers_for(a_flow("x", "x", "y", "own"), {}, plugins)


# ---------------------------------------------------------------- code of the user's that raises

WRONG_CODE: dict[str, tuple[str, str]] = {
    "a flow that raises": (
        (
            "from flowkit import flow\n@flow\ndef f(g):\n    sizes = {}\n    g.node('a', 'x',"
            " input_inline=sizes['small'])\n"
        ),
        (
            "f.py cannot be built: {folder}/f.py, line 5: KeyError: 'small'\n    g.node('a', 'x',"
            " input_inline=sizes['small'])"
        ),
    ),
    "a flow whose helper raises": (
        (
            "from flowkit import flow\ndef helper():\n    raise OSError('no disk')\n@flow\ndef"
            " f(g):\n    helper()\n"
        ),
        (
            "f.py cannot be built: {folder}/f.py, line 3: OSError: no disk\n    raise OSError('no"
            " disk')"
        ),
    ),
    "a flow that gives what is no node": (
        "from flowkit import flow\n@flow\ndef f(g):\n    g.node('a', 'x', after=[3]) >> 7\n",
        "f.py cannot be built: {folder}/f.py, line 4: ",
    ),
    "a flow with parameters": (
        "from flowkit import flow\n@flow\ndef f(g, size):\n    g.node('a', 'x')\n",
        (
            "f.py cannot be built: TypeError: @flow: f cannot be called like this: missing a"
            " required argument: 'size' ({folder}/f.py, line 2)"
        ),
    ),
    "a flow that yields": (
        "from flowkit import flow\n@flow\ndef f(g):\n    yield g.node('a', 'x')\n",
        (
            "TypeError: @flow: f is a generator; a flow makes nodes and does not yield"
            " ({folder}/f.py, line 2)"
        ),
    ),
    "a class as a flow": (
        "from flowkit import flow\n@flow\nclass F:\n    pass\n",
        "f.py, line 2: TypeError: @flow: F is not a function; write a flow as def name(...): ...",
    ),
    "a method declared as a handler": (
        (
            "from flowkit.worker import handler\nclass A:\n    @handler('x')\n    async def"
            " work(self, item): ...\n"
        ),
        (
            "work cannot be a handler: it is a method, and would be called without self; use a"
            " plain function or a Handler class"
        ),
    ),
    "handlers that are none": (
        "from flowkit import flow\nhandlers = {'x': 3}\n@flow\ndef f(g):\n    g.node('a', 'x')\n",
        "f.py: handlers: the value for role 'x' is not a handler: 3",
    ),
    "a handler for a built-in type": (
        "async def nap(item): ...\nhandlers = {'sleep': nap}\n" + "from flowkit import Graph\n"
        "g = Graph()\ng.node('a', 'sleep', for_sec=1)\n",
        "f.py: handlers: 'sleep' is a built-in type of nodes, which no worker runs; choose another",
    ),
    "a file with a NUL": (
        "x = 1\x00\n",
        (
            "f.py cannot be imported: not a UTF-8 Python file: source code string cannot"
            " contain null bytes"
        ),
    ),
    "a module that raises": (
        "import json\njson.loads('{')\n",
        "f.py cannot be imported: ",
    ),
    "a class declared as a handler": (
        (
            "from flowkit.worker import handler\n@handler('x')\nclass Work:\n    def"
            " __call__(self): ...\n"
        ),
        "Work cannot be a handler: it is a class",
    ),
    "a synchronous process_batch": (
        (
            "from flowkit.worker import Handler\nclass Work(Handler):\n    def process_batch(self,"
            " batch, ctx): ...\n"
        ),
        (
            "Work cannot be a handler: process_batch is awaited; write it with 'async def'"
            " ({folder}/f.py, line 3)"
        ),
    ),
}


@pytest.mark.parametrize(("text", "sentence"), WRONG_CODE.values(), ids=WRONG_CODE)
def test_an_error_in_the_users_code_shows_their_line_and_no_traceback(
    folder: Path, plugins: Plugins, text: str, sentence: str
):
    (folder / "f.py").write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_flow("f.py", plugins)
    assert sentence.replace("{folder}", str(folder)) in str(caught.value)
    assert "flowkit-core" not in str(caught.value)


def test_a_file_that_is_not_utf_8_is_refused_in_words(folder: Path, plugins: Plugins):
    (folder / "f.py").write_text("x = 1\n", encoding="utf-16")
    with pytest.raises(ConfigError, match=r"f\.py cannot be imported: ") as caught:
        load_flow("f.py", plugins)
    assert "None" not in str(caught.value)
