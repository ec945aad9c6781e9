"""Seeds of the fuzzing corpus, from FlowKit's own output.

``python -m tests.fuzz.seeds`` adds the missing ones.
"""

from collections.abc import Iterator
from dataclasses import fields
from hashlib import sha256
from pathlib import Path

from pydantic import BaseModel

from flowkit import Graph
from flowkit._engine import EngineSettings
from flowkit._expressions.function_table import GLOBAL, METHODS
from flowkit._expressions.parser import MACROS
from flowkit._records.record_parts import encode_node
from flowkit._tasks.submission import submission
from flowkit.graph._models import EdgeSpec, GraphDocument, NodeIO, NodeSpec
from flowkit.messages import _MODELS, KINDS, RunContextData, encode
from flowkit.task import NodeRecord, TaskSpec
from tests.messages.test_messages import ALL

CORPUS = Path(__file__).parent / "corpus"
DOCUMENTS = (
    '{"nodes":[{"node_id":"a","type":"work"},{"node_id":"b","type":"work","depends_on":["a"],"fan_in":"any"}],"edges":[["a","b"]]}',
    '{"nodes":[{"node_id":"a","type":"coordinator_fn","io":{"fn":"vars.set","fn_args":{"kv":{"x":1}}}}],"on_node_failure":"continue"}',
    (
        "nodes:\n- {node_id: a, type: work, when: 'params.n > 3', retry_policy: {max: 1}}\n-"
        " node_id: b\n  type: work\n  depends_on: [a]\n"
    ),
    (
        "nodes:\n- {node_id: a, type: work, routing: {on_failure: [b]}, timeouts: {heartbeat_sec:"
        " 3}}\n- {node_id: b, type: w}\nedges_ex: []\n"
    ),
)
CONDITIONS = (
    "params.n > 3",
    "vars.sla == 'gold' && results.count.n > 3",
    "size(params.a) == 2 ? has(vars.x) : 'x' in ['x']",
    "params.a.all(i, i > 0) || params.a.map(i, i * 2).exists(i, i == 4)",
    "timestamp('2026-01-01T00:00:00Z') > timestamp('2025-01-01T00:00:00Z')",
    "'abc'.matches('a.*') && 1.5 / 0.0 > 2.0",
    "task.created_at.getHours('+02:00') > 3 && duration('1h30m') < duration('5400.5s')",
    "string({'a': [1u, 0x2f, b'x', null]}).replace('a', 'b').split(',')[0].substring(1) != ''",
    (
        "[[1, 2], params.a].map(x, x.size() > 1, x[0]).filter(y, -y < (!true ? 1 : 2)) + [3] == {1:"
        " true}[1]"
    ),
    "results['count'].n in [4.0] || has(errors.load) || r'a' < 'b'.trim()",
)
TEXTS = (
    "mongodb://user:password@host/db",
    "password='secret' \x1b[2J\u202e",
    '{"api_key": "x", "token": "y"}',
)


def seeds() -> Iterator[tuple[str, bytes]]:
    """Return the first inputs of each target."""
    yield from (("message", encode(message)) for message in ALL)
    yield from (("graph", document.encode()) for document in DOCUMENTS)
    yield from (("condition", condition.encode()) for condition in CONDITIONS)
    yield from (("text", text.encode()) for text in TEXTS)
    node = encode_node(
        NodeRecord(
            attempt=2, worker_id="w", started_at=1.5, result={"n": 1}, metrics={"m": 2}, error="no"
        )
    )
    yield "part", node
    yield "part", b'[[1.5,-1,"status",null,"queued"],[2.0,0,"progress","x",{"done":1}]]'
    for document in DOCUMENTS[:2]:
        graph = Graph.parse(document)
        spec = TaskSpec(
            "t", graph.plan, 1.0, b"0123456789abcdef", params={"n": 1}, labels={"a": "b"}
        )
        row = submission(spec, graph.source, certainly_new=True, settings=EngineSettings()).record
        yield (
            "record",
            b"\0".join(
                [row.spec, *(name.encode() + b"=" + value for name, value in row.parts.items())]
            ),
        )


def words() -> set[str]:
    """Return the fuzzer's dictionary: names of fields and kinds, and words of JSON and YAML."""
    models: list[type[BaseModel]] = [
        *_MODELS,
        RunContextData,
        GraphDocument,
        NodeSpec,
        NodeIO,
        EdgeSpec,
    ]
    found = {name for model in models for name in model.model_fields}
    found |= {
        *KINDS,
        "from",
        "status",
        "marks",
        "null",
        "true",
        "NaN",
        "Infinity",
        "1e999",
        "[[",
        "]]",
        "{",
        "}",
        ":",
        ",",
        "- ",
        "&a",
        "*a",
        "!!",
    }
    return found | {field.name for field in fields(NodeRecord)} | {*GLOBAL, *METHODS, *MACROS}


def main() -> None:
    lines = [f'"{word}"\n' for word in sorted(words())]
    (CORPUS.parent / "words.dict").write_text("".join(lines), encoding="utf-8")
    for target, data in seeds():
        path = CORPUS / target / sha256(data).hexdigest()[:16]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
