"""Cost of expressions: ``python -m benchmarks.expressions`` prints one JSON object a line.

It compares FlowKit's evaluator with ``common-expression-language`` (Rust), a dependency of the
tests. It measures processor time and takes the best of several runs. A bomb is an expression that
exceeds both budgets: the one for evaluation before a commit, and the one for a thread.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import cel

from flowkit._expressions import Budget, BudgetExceeded, Expression, compile_expression
from flowkit._tasks.evaluation import MEMORY_AT_ONCE, STEPS_AT_ONCE
from flowkit.graph import Graph
from flowkit.graph._conditions import MAX_MEMORY, MAX_STEPS
from flowkit.graph._templates import evaluate_input

SIMPLE = {
    "two comparisons": "vars.sla == 'gold' && results.count.n > 3",
    "has": "has(params.limit) && params.limit < 100",
    "a list": "params.xs.exists(x, x == 7)",
    "text": "vars.sla.startsWith('go') && vars.sla.matches('^g')",
}
SCOPE: dict[str, Any] = {
    "params": {"limit": 5, "xs": list(range(10))},
    "vars": {"sla": "gold"},
    "results": {"count": {"n": 4}},
}
INPUTS = {
    "no expression": {"path": "/data", "limit": 5},
    "one simple expression": {"path": "/data", "limit": "${params.limit * 2}"},
}
UNUSED = {**SCOPE, "results": {"count": {"n": 4}, "rows": [{"n": n} for n in range(10_000)]}}
TEN = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"
BOMBS = {
    "nested loops": "".join(f"{TEN}.all({name}, " for name in "abcdefg") + "true" + ")" * 7,
    "strings that grow": "['x']"
    + ".map(v, v + v + v + v + v + v + v + v + v + v)" * 9
    + " == ['']",
    "lists that grow": "[[1]]" + ".map(v, v + v + v + v + v + v + v + v + v + v)" * 9 + " == []",
    "JSON that grows": "string([[0]]" + ".map(v, [v, v, v, v, v, v, v, v, v, v])" * 9 + ") == ''",
    "errors": "rows.all(a, rows.all(b, int('x') > 0))",
    "patterns": "rows.all(a, rows.all(b, text.matches('^a+')))",
}
BOMB_SCOPE: dict[str, Any] = {"rows": list(range(1000)), "text": "a" * 100_000}


def best_us(function: Callable[[], object], *, runs: int = 7, times: int = 500) -> float:
    """Return the processor time of one call in microseconds."""
    found = []
    for _ in range(runs):
        began = time.process_time()
        for _ in range(times):
            function()
        found.append((time.process_time() - began) / times * 1e6)
    return min(found)


def evaluate(expression: Expression, scope: dict[str, Any]) -> Any:
    return expression.evaluate(scope, Budget(STEPS_AT_ONCE, MEMORY_AT_ONCE))


def compare(name: str, source: str, scope: dict[str, Any], **options: int) -> dict[str, Any]:
    ours, theirs = compile_expression(source), cel.compile(source)
    names = {path[0]: scope[path[0]] for path in ours.paths}
    assert evaluate(ours, scope) == theirs.execute(names)
    ours_us = best_us(lambda: evaluate(ours, scope), **options)
    theirs_us = best_us(lambda: theirs.execute(names), **options)
    return {
        "evaluate": name,
        "us": round(ours_us, 2),
        "library_us": round(theirs_us, 2),
        "ratio": round(ours_us / theirs_us, 2),
    }


def input_us(value: Any) -> float:
    """Return the processor time to recognize and evaluate the input of a node."""
    graph = Graph.parse({"nodes": [{"node_id": "a", "type": "x", "io": {"input_inline": value}}]})
    plan = graph.plan

    def once() -> None:
        if 0 in plan.computed:
            budget = Budget(STEPS_AT_ONCE, MEMORY_AT_ONCE)
            evaluate_input(plan.nodes[0].io.__dict__, SCOPE, budget, at_once=True)

    return best_us(once)


def refuse(source: str, steps: int, memory: int) -> float:
    """Return the processor time until an evaluation is refused, in milliseconds."""
    expression, began = compile_expression(source), time.process_time()
    try:
        expression.evaluate(BOMB_SCOPE, Budget(steps, memory))
    except BudgetExceeded:
        return round((time.process_time() - began) * 1e3, 1)
    raise AssertionError(source)


def main() -> None:
    for name, source in SIMPLE.items():
        print(json.dumps(compare(name, source, SCOPE)))
    print(
        json.dumps(
            compare(
                "beside 10,000 rows that are not read",
                SIMPLE["two comparisons"],
                UNUSED,
                runs=3,
                times=10,
            )
        )
    )
    for name, value in INPUTS.items():
        print(json.dumps({"input": name, "us": round(input_us(value), 2)}))
    source = SIMPLE["two comparisons"]
    ours_us, theirs_us = best_us(lambda: Expression(source)), best_us(lambda: cel.compile(source))
    print(
        json.dumps(
            {
                "compile": source,
                "us": round(ours_us, 1),
                "library_us": round(theirs_us, 1),
                "ratio": round(ours_us / theirs_us, 2),
            }
        )
    )
    for name, bomb in BOMBS.items():
        at_once_ms = min(refuse(bomb, STEPS_AT_ONCE, MEMORY_AT_ONCE) for _ in range(3))
        print(
            json.dumps(
                {
                    "bomb": name,
                    "refused_at_once_ms": at_once_ms,
                    "refused_in_thread_ms": refuse(bomb, MAX_STEPS, MAX_MEMORY),
                }
            )
        )


if __name__ == "__main__":
    main()
