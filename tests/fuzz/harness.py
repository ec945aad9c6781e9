"""Fuzz targets: each takes any bytes and raises only FlowKit's own errors.

``python tests/fuzz/harness.py TARGET [libFuzzer's options] [CORPUS...]`` fuzzes one target with
atheris. The tests run each target for a while. They start one process without arguments, which
forks for each target: to instrument the code takes longer than most of the runs.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable

import atheris

# The code under test is instrumented when it is imported, so that the fuzzer sees the paths of an
# input.
with atheris.instrument_imports(include=["flowkit"]):
    from flowkit import Graph
    from flowkit._expressions import Timestamp
    from flowkit._records import record_parts, task_records
    from flowkit._tasks.views import full_view
    from flowkit._text.redaction import printable, redacted
    from flowkit.errors import FlowKitError
    from flowkit.graph import evaluate_condition
    from flowkit.messages import decode, encode
    from flowkit.protocols import TaskHeader, TaskRecord

SCOPE = {
    "params": {"n": 3, "a": [1, 2]},
    "vars": {"sla": "gold"},
    "results": {"count": {"n": 4}},
    "errors": {},
    "task": {"id": "t", "pipeline": None, "labels": {}, "created_at": Timestamp(0)},
}


def message(data: bytes) -> None:
    """Decode a message. A valid one is encoded and decoded to the same message."""
    read = decode(data)
    assert decode(encode(read)) == read


def record(data: bytes) -> None:
    """Decode the record of a task: ``spec``, then ``name=value`` parts, separated by zeros."""
    spec, *parts = data.split(b"\0")
    named = dict(part.partition(b"=")[::2] for part in parts)
    row = TaskRecord(
        TaskHeader("t", "queued", 1.0),
        spec,
        {name.decode("latin-1") or "x": value for name, value in named.items()},
    )
    task = task_records.decode_task(row)
    full_view(task, task.records)


def part(data: bytes) -> None:
    """Decode a part of the archive: the record of a node, and a part of the history."""
    with contextlib.suppress(FlowKitError):
        record_parts.decode_node(data, "t", "a")
    record_parts.decode_log("e1", data, "t")


def graph(data: bytes) -> None:
    """Parse a graph document in JSON or YAML. A valid one is equal after a second parse."""
    parsed = Graph.parse(data)
    assert Graph.parse(parsed.to_dict()) == parsed


def condition(data: bytes) -> None:
    """Check a ``when`` condition. A valid one is evaluated or raises a NodeFailure."""
    when = data.decode("utf-8", "replace")
    Graph.parse({"nodes": [{"node_id": "a", "type": "work", "when": when}]})
    evaluate_condition(when, SCOPE)


def text(data: bytes) -> None:
    """Escape a text for the terminal. Escaping it again changes nothing."""
    shown = printable(redacted(data.decode("utf-8", "surrogateescape")))
    shown.encode()
    assert printable(shown) == shown


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (message, record, part, graph, condition, text)
}


def fuzz(name: str, *options: str) -> None:
    """Run a target; this ends the process."""
    target = TARGETS[name]

    def once(data: bytes) -> None:
        with contextlib.suppress(FlowKitError):
            target(data)

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


def serve() -> None:
    """Fuzz for each line of the standard input, and print the exit status.

    A line has the path of a file for the output, and the arguments of ``fuzz``, as JSON.
    """
    for line in sys.stdin:
        output, *arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            file = os.open(output, os.O_WRONLY | os.O_CREAT)
            os.dup2(file, 1)
            os.dup2(file, 2)
            fuzz(*arguments)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    if sys.argv[1:]:
        fuzz(*sys.argv[1:])
    else:
        serve()
