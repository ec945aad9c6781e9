"""Diagrams of graphs."""

from flowkit.graph import Graph
from flowkit.graph._diagrams import to_dot, to_mermaid, tree_lines

GRAPH = Graph.parse(
    {
        "nodes": [
            {
                "node_id": "extract",
                "type": "reader",
                "routing": {"on_failure": ["alarm"], "on_success": ["go"]},
            },
            {
                "node_id": 'cl"ea\\n',
                "type": "<cleaner>",
                "depends_on": ["extract"],
                "io": {"start_when": "first_batch"},
            },
            {
                "node_id": "sum",
                "type": "coordinator_fn",
                "depends_on": ["extract"],
                "io": {"fn": "noop"},
                "when": "vars.x ==\n'a'",
            },
            {
                "node_id": "end",
                "type": "writer",
                "depends_on": ['cl"ea\\n', "sum"],
                "fan_in": "any",
            },
            {"node_id": "alarm", "type": "mailer"},
            {"node_id": "go", "type": "goer", "optional": True},
        ]
    }
)


def test_mermaid_shows_types_functions_and_kinds_of_edges_and_escapes_names() -> None:
    assert to_mermaid(GRAPH) == (
        "flowchart TD\n"
        '    n0["extract<br/>reader"]\n'
        '    n1["cl#34;ea#92;n<br/>#60;cleaner#62;"]\n'
        '    n2[["sum<br/>noop<br/>when vars.x == #39;a#39;"]]\n'
        '    n3["end<br/>writer<br/>fan-in any"]\n'
        '    n4["alarm<br/>mailer"]\n'
        '    n5["go<br/>goer<br/>optional"]\n'
        "    n0 -.->|first batch| n1\n"
        "    n0 --> n2\n"
        "    n0 -->|failure| n4\n"
        "    n0 -->|success| n5\n"
        "    n1 --> n3\n"
        "    n2 --> n3\n"
    )


def test_dot_shows_the_same() -> None:
    assert to_dot(GRAPH) == (
        "digraph flow {\n"
        "    rankdir=TB;\n"
        '    node [shape=box, style=rounded, fontname="sans-serif"];\n'
        '    n0 [label="extract\\nreader"];\n'
        '    n1 [label="cl\\"ea\\\\n\\n<cleaner>"];\n'
        "    n2 [label=\"sum\\nnoop\\nwhen vars.x == 'a'\", shape=component];\n"
        '    n3 [label="end\\nwriter\\nfan-in any"];\n'
        '    n4 [label="alarm\\nmailer"];\n'
        '    n5 [label="go\\ngoer\\noptional"];\n'
        '    n0 -> n1 [label="first batch", style=dashed];\n'
        "    n0 -> n2;\n"
        '    n0 -> n4 [label="failure"];\n'
        '    n0 -> n5 [label="success"];\n'
        "    n1 -> n3;\n"
        "    n2 -> n3;\n"
        "}\n"
    )


def test_the_tree_draws_a_node_in_full_once() -> None:
    assert [str(line) for line in tree_lines(GRAPH)] == [
        "extract  reader",
        '├── (first batch) cl"ea\\n  <cleaner>',
        "│   └── end  writer fan-in any",
        "├── sum  noop when vars.x == 'a'",
        "│   └── end ↑",
        "├── (failure) alarm  mailer",
        "└── (success) go  goer optional",
    ]


def test_the_tree_of_a_long_chain_does_not_run_out_of_the_screen() -> None:
    chain = [
        {"node_id": f"n{place}", "type": "x", "depends_on": [f"n{place - 1}"] if place else []}
        for place in range(5_000)
    ]
    lines = list(tree_lines(Graph.parse({"nodes": chain})))
    assert len(lines) == 5_000
    assert max(len(line.prefix) for line in lines) <= 170


def test_the_tree_has_every_edge() -> None:
    lines = list(tree_lines(GRAPH))
    assert len(lines) == len(GRAPH.plan.roots) + sum(map(len, GRAPH.plan.children))
    assert [line.node_id for line in lines if line.repeated] == ["end"]


def test_a_subflow_says_which_nodes_its_graph_has() -> None:
    def labels(*names: str) -> str:
        flow = Graph()
        flow.node("s", "subflow", graph={"nodes": [{"node_id": n, "type": "w"} for n in names]})
        return str(next(tree_lines(flow)))

    assert labels("a", "b") == "s  subflow of a, b"
    assert labels(*"abcde") == "s  subflow of a, b, c and 2 more"


INNER = {
    "nodes": [{"node_id": "x", "type": "w"}, {"node_id": "y", "type": "w", "depends_on": ["x"]}],
    "finally": [{"node_id": "f", "type": "w"}],
}
NESTED = Graph.parse(
    {
        "nodes": [
            {"node_id": "a", "type": "w"},
            {
                "node_id": "s",
                "type": "subflow",
                "depends_on": ["a"],
                "map": {"over": [1, 2]},
                "io": {
                    "graph": {
                        "nodes": [{"node_id": "t", "type": "subflow", "io": {"graph": INNER}}]
                    }
                },
            },
            {"node_id": "b", "type": "w", "depends_on": ["s"]},
        ],
        "finally": [
            {
                "node_id": "u",
                "type": "subflow",
                "io": {"graph": {"nodes": [{"node_id": "v", "type": "w"}]}},
            }
        ],
    }
)


def test_mermaid_shows_a_subflow_as_a_subgraph_with_the_nodes_of_its_graph() -> None:
    assert to_mermaid(NESTED) == (
        "flowchart TD\n"
        '    n0["a<br/>w"]\n'
        '    subgraph n1["s<br/>subflow of t<br/>map over 2 items"]\n'
        '        subgraph n1_0["t<br/>subflow of x, y"]\n'
        '            n1_0_0["x<br/>w"]\n'
        '            n1_0_1["y<br/>w"]\n'
        '            n1_0_2["f<br/>w"]\n'
        "            n1_0_0 --> n1_0_1\n"
        '            subgraph n1_0__finally["finally"]\n'
        "                n1_0_2\n"
        "            end\n"
        "        end\n"
        "    end\n"
        '    n2["b<br/>w"]\n'
        '    subgraph n3["u<br/>subflow of v"]\n'
        '        n3_0["v<br/>w"]\n'
        "    end\n"
        "    n0 --> n1\n"
        "    n1 --> n2\n"
        '    subgraph n_finally["finally"]\n'
        "        n3\n"
        "    end\n"
    )


def test_dot_shows_a_subflow_in_a_cluster_with_the_nodes_of_its_graph() -> None:
    lines = [line.strip() for line in to_dot(NESTED).splitlines()]
    assert lines[3:] == [
        'n0 [label="a\\nw"];',
        'n1 [label="s\\nsubflow of t\\nmap over 2 items", shape=oval];',
        'n2 [label="b\\nw"];',
        'n3 [label="u\\nsubflow of v", shape=oval];',
        "n0 -> n1;",
        "n1 -> n2;",
        "subgraph cluster_n1 {",
        'label="s";',
        "n1;",
        'n1_0 [label="t\\nsubflow of x, y", shape=oval];',
        "subgraph cluster_n1_0 {",
        'label="t";',
        "n1_0;",
        'n1_0_0 [label="x\\nw"];',
        'n1_0_1 [label="y\\nw"];',
        'n1_0_2 [label="f\\nw"];',
        "n1_0_0 -> n1_0_1;",
        "subgraph cluster_n1_0__finally {",
        'label="finally";',
        "n1_0_2;",
        "}",
        "n1_0 -> n1_0_0 [style=dotted, arrowhead=none];",
        "}",
        "n1 -> n1_0 [style=dotted, arrowhead=none];",
        "}",
        "subgraph cluster_n_finally {",
        'label="finally";',
        "n3;",
        "subgraph cluster_n3 {",
        'label="u";',
        "n3;",
        'n3_0 [label="v\\nw"];',
        "n3 -> n3_0 [style=dotted, arrowhead=none];",
        "}",
        "}",
        "}",
    ]


def test_the_tree_shows_the_graph_of_a_subflow_behind_a_dotted_line() -> None:
    assert [str(line) for line in tree_lines(NESTED)] == [
        "a  w",
        "└── s  subflow of t map over 2 items",
        "    │ ┊ t  subflow of x, y",
        "    │ ┊   ┊ x  w",
        "    │ ┊   ┊ └── y  w",
        "    │ ┊   ┊ (finally) f  w",
        "    └── b  w",
        "(finally) u  subflow of v",
        "  ┊ v  w",
    ]


def test_nodes_that_wait_have_a_shape_of_their_own_and_say_for_what() -> None:
    flow = Graph()
    flow.node("nap", "sleep", for_sec=60)
    flow.node("dawn", "sleep", until="2030-01-01T06:00:00Z", after=["nap"])
    assert to_mermaid(flow).splitlines()[1:3] == [
        '    n0(["nap<br/>sleep 60 s"])',
        '    n1(["dawn<br/>sleep until 2030-01-01T06:00:00Z"])',
    ]
    assert '    n0 [label="nap\\nsleep 60 s", shape=oval];' in to_dot(flow).splitlines()
    assert [str(line) for line in tree_lines(flow)] == [
        "nap  sleep 60 s",
        "└── dawn  sleep until 2030-01-01T06:00:00Z",
    ]


WITH_ENDS = Graph.parse(
    {
        "nodes": [
            {"node_id": "book", "type": "book", "undo": {"type": "unbook"}},
            {"node_id": "pay", "type": "pay", "depends_on": ["book"]},
        ],
        "finally": [
            {"node_id": "tidy", "type": "tidy"},
            {"node_id": "tell", "type": "mail", "depends_on": ["tidy"]},
        ],
    }
)


def test_mermaid_shows_undos_and_finally() -> None:
    assert to_mermaid(WITH_ENDS) == (
        "flowchart TD\n"
        '    n0["book<br/>book<br/>undo unbook"]\n'
        '    n1["pay<br/>pay"]\n'
        '    n2["tidy<br/>tidy"]\n'
        '    n3["tell<br/>mail"]\n'
        '    n4["book#126;undo<br/>unbook"]\n'
        "    n0 --> n1\n"
        "    n2 --> n3\n"
        "    n0 -.->|undo| n4\n"
        '    subgraph n_finally["finally"]\n'
        "        n2\n"
        "        n3\n"
        "    end\n"
    )


def test_dot_shows_undos_and_finally() -> None:
    lines = to_dot(WITH_ENDS).splitlines()
    assert lines[-7:] == [
        '    n0 -> n4 [label="undo", style=dotted];',
        "    subgraph cluster_n_finally {",
        '        label="finally";',
        "        n2;",
        "        n3;",
        "    }",
        "}",
    ]


def test_the_tree_shows_undos_and_finally() -> None:
    assert [str(line) for line in tree_lines(WITH_ENDS)] == [
        "book  book undo unbook",
        "└── pay  pay",
        "(finally) tidy  tidy",
        "└── tell  mail",
    ]


def test_the_undo_of_a_map_is_drawn_as_that_of_a_node() -> None:
    undone = {"node_id": "m", "type": "x", "map": {"over": [1]}, "undo": {"type": "u"}}
    flow = Graph.parse({"nodes": [undone]})
    assert '    n1["m#126;undo<br/>u"]\n' in to_mermaid(flow)
    assert [str(line) for line in tree_lines(flow)] == ["m  x undo u map over 1 items"]


def test_a_loop_is_drawn_with_its_condition_and_the_nodes_of_its_graph() -> None:
    io = {"graph": {"nodes": [{"node_id": "x", "type": "w"}]}, "until": "previous.x == 1"}
    loop = Graph.parse({"nodes": [{"node_id": "l", "type": "loop", "io": io}]})
    assert str(next(tree_lines(loop))) == "l  loop of x until previous.x == 1"
    assert to_mermaid(loop) == (
        "flowchart TD\n"
        '    subgraph n0["l<br/>loop of x until previous.x == 1"]\n'
        '        n0_0["x<br/>w"]\n'
        "    end\n"
    )
    assert "subgraph cluster_n0 {" in to_dot(loop)


def test_a_map_over_artifacts_names_the_parent_and_starts_on_its_first_batch() -> None:
    m = {"node_id": "m", "type": "x", "depends_on": ["p"], "map": {"over": {"artifacts": "p"}}}
    found = to_mermaid(Graph.parse({"nodes": [{"node_id": "p", "type": "t"}, m]}))
    assert "map over artifacts of p" in found
    assert "first batch" in found


def test_a_node_with_shards_says_how_many() -> None:
    reader = {"node_id": "c", "type": "x", "depends_on": ["p"]}
    reader["io"] = {"start_when": "first_batch", "shards": 3}
    found = to_mermaid(Graph.parse({"nodes": [{"node_id": "p", "type": "t"}, reader]}))
    assert "c<br/>x<br/>3 shards" in found
