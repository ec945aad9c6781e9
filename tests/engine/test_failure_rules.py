"""The rules of joins and failures: one sentence a row, and a task that shows it.

A row has the sentence, the graph, the events, and the marks of the nodes and the status of the task
after them. Marks: ``.`` waits, ``q`` issued, ``d`` deferred, ``c`` being cancelled, ``F`` finished,
``X`` failed, ``C`` cancelled, ``S`` skipped without a failure, ``x`` skipped because of a failure.
"""

from typing import Any, NamedTuple

import pytest

from tests.engine.drive import Play, graph

ANY, TWO, ENDED = {"fan_in": "any"}, {"fan_in": "count:2"}, {"fan_in": "ended"}
IF, OPTIONAL, CANCELS = {"when": "vars.x"}, {"optional": True}, {"on_satisfied": "cancel"}
GO_ON = {"on_node_failure": "continue"}


class Rule(NamedTuple):
    sentence: str
    lines: tuple[str, ...]
    fields: dict[str, Any]
    events: str
    """``a+`` succeeds, ``a-`` fails permanently, ``a~`` fails and is retried, ``a!`` starts, ``a?``
    has a false condition.
    """
    marks: str
    status: str


RULES = (
    # ------------------------------------------------ fan-in
    Rule(
        "all waits for all parents",
        ("a b -> c",),
        {},
        "a+",
        "Fq.",
        "running",
    ),
    Rule(
        "a fan-in that can no longer be met skips the node at once: all",
        ("a b -> c",),
        GO_ON,
        "a-",
        "Xqx",
        "running",
    ),
    Rule(
        "a fan-in that can no longer be met skips the node at once: any",
        ("a b -> c", "d"),
        {**GO_ON, "c": ANY},
        "a- b-",
        "XXxq",
        "running",
    ),
    Rule(
        "a fan-in that can no longer be met skips the node at once: count",
        ("a b e -> c",),
        {**GO_ON, "c": TWO},
        "a- b-",
        "XXqx",
        "running",
    ),
    Rule(
        "with any, parents that still run are left alone",
        ("a b -> c",),
        {"c": ANY},
        "b! a+",
        "Fuq",
        "running",
    ),
    Rule(
        "unless on_satisfied: cancel is set",
        ("a b -> c",),
        {"c": ANY | CANCELS},
        "b! a+",
        "Fcq",
        "running",
    ),
    Rule(
        "ended waits until all parents have ended",
        ("a b e -> c",),
        {**GO_ON, "c": ENDED},
        "a- b+",
        "XFq.",
        "running",
    ),
    Rule(
        "ended: finished, failed or skipped",
        ("a b e -> c", "a -> f", "f -> c"),
        {**GO_ON, "c": ENDED, "e": IF},
        "a- b+ e?",
        "XFSqx",
        "running",
    ),
    Rule(
        "ended does not handle a failure: under stop the node never starts",
        ("a b -> c",),
        {"c": ENDED},
        "a-",
        "XCC",
        "failed",
    ),
    # ------------------------------------------------ routing
    Rule(
        "a node that only stands on the branch not taken is skipped: after a success",
        ("a +> g", "a !> h"),
        {},
        "a+ g+",
        "FFS",
        "finished",
    ),
    Rule(
        "a node that only stands on the branch not taken is skipped: after a failure",
        ("a +> g", "a !> h"),
        {},
        "a- h+",
        "XSF",
        "finished",
    ),
    Rule(
        "a failure with an on_failure branch is handled: the task goes on",
        ("a b", "a !> h"),
        {},
        "a-",
        "Xqq",
        "running",
    ),
    Rule(
        "a failure with an on_failure branch is handled: the task can finish",
        ("a !> h",),
        {},
        "a- h+",
        "XF",
        "finished",
    ),
    Rule(
        "an on_success edge of a failed node is not taken if there is an on_failure branch",
        ("a +> g", "a !> h", "g h -> j"),
        {},
        "a- h+",
        "XSFq",
        "running",
    ),
    Rule(
        "otherwise it counts as a failed parent",
        ("a +> g", "g b -> j"),
        GO_ON,
        "a- b+",
        "XxFx",
        "failed",
    ),
    Rule(
        "a plain edge of a failed node counts as a failed parent, also if a branch handles it",
        ("a -> g", "a !> h", "g h -> j"),
        {},
        "a- h+",
        "XxFx",
        "finished",
    ),
    # ------------------------------------------------ optional nodes
    Rule(
        "optional: the node's failure fails neither the task nor another node",
        ("a b -> c",),
        {"a": OPTIONAL},
        "a- b+ c+",
        "XFF",
        "finished",
    ),
    Rule(
        "optional: it counts as ended without data",
        ("a b -> c d e", "f -> d e"),
        {"a": OPTIONAL, "c": ANY, "d": TWO, "e": ENDED},
        "a- b+ f+",
        "XFqqqF",
        "running",
    ),
    Rule(
        "optional: a node all of whose parents ended without data is skipped",
        ("a -> c", "c b -> d"),
        {"a": OPTIONAL},
        "a- b+",
        "XSFq",
        "running",
    ),
    Rule(
        "optional: its failure is retried first",
        ("a -> c",),
        {"a": OPTIONAL},
        "a~",
        "d.",
        "deferred",
    ),
    # ------------------------------------------------ the task
    Rule(
        "stop: the first node that fails for good without a branch fails the task; what runs is"
        " cancelled, what has not begun never begins",
        ("a b -> c", "d"),
        {},
        "b! a-",
        "XcCC",
        "cancelling",
    ),
    Rule(
        "stop: a node that will be retried stops nothing",
        ("a b",),
        {},
        "a~",
        "dq",
        "running",
    ),
    Rule(
        "continue: what does not depend on the failure runs to its end",
        ("a -> b", "b -> e", "c -> d"),
        GO_ON,
        "a- c+",
        "XxxFq",
        "running",
    ),
    Rule(
        "continue: then the task fails",
        ("a -> b", "b -> e", "c -> d"),
        GO_ON,
        "a- c+ d+",
        "XxxFF",
        "failed",
    ),
    # ------------------------------------------------ skipped parents
    Rule(
        "a parent skipped by a false condition counts as ended without data: all waits for others",
        ("a b -> c",),
        {"a": IF},
        "a? b+",
        "SFq",
        "running",
    ),
    Rule(
        "a parent skipped on a branch not taken counts as ended without data",
        ("a !> h", "h b -> c"),
        {},
        "a+ b+",
        "FSFq",
        "running",
    ),
    Rule(
        "a node all of whose parents were skipped so is skipped",
        ("a b -> c", "c -> d"),
        {"a": IF, "b": IF},
        "a? b?",
        "SSSS",
        "finished",
    ),
    Rule(
        "a parent that was skipped because something above it failed counts as failed, over any"
        " number of steps",
        ("a -> b", "b -> c", "c -> d", "d e -> f"),
        GO_ON,
        "a- e+",
        "XxxxFx",
        "failed",
    ),
    Rule(
        "any is an exception",
        ("a -> b", "b e -> f"),
        {**GO_ON, "f": ANY},
        "a- e+",
        "XxFq",
        "running",
    ),
    Rule(
        "count is an exception",
        ("a -> b", "b e g -> f"),
        {**GO_ON, "f": TWO},
        "a- e+ g+",
        "XxFFq",
        "running",
    ),
    Rule(
        "ended is an exception",
        ("a -> b", "b e -> f"),
        {**GO_ON, "f": ENDED},
        "a- e+",
        "XxFq",
        "running",
    ),
    Rule(
        "optional is an exception",
        ("a -> b", "b e -> f"),
        {**GO_ON, "b": OPTIONAL},
        "a- e+",
        "XxFq",
        "running",
    ),
    Rule(
        "a skip without a failure below a skip without a failure is none either",
        ("a -> b", "b -> c", "c e -> f"),
        {"a": IF},
        "a? e+",
        "SSSFq",
        "running",
    ),
    Rule(
        "when: false means skipped",
        ("a -> b",),
        {"b": IF},
        "a+ b?",
        "FS",
        "finished",
    ),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.sentence.replace(" ", "-"))
def test_a_task_does_what_the_sentence_says(rule: Rule):
    play = Play(graph(*rule.lines, **rule.fields))
    for event in rule.events.split():
        name = event[:-1]
        match event[-1]:
            case "+":
                play.succeeds(name)
            case "-":
                play.breaks(name)
            case "~":
                play.fails(name)
            case "!":
                play.starts(name)
            case "?":
                play.condition(name, value=False)
    assert (play.marks, play.task.status.value) == (rule.marks, rule.status)
