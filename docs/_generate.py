"""Generate the parts of pages that repeat the code: ``python docs/_generate.py``.

A page marks such a part with ``<!-- generated: NAME -->`` and ``<!-- end -->``. The text between
them is replaced by the output of the function of that name in :data:`GENERATORS`. A test fails if a
page is not current.
"""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peers import report as performance
from benchmarks.peers.chart import chart as chart_of_rates
from benchmarks.peers.results import FILE as RESULTS
from benchmarks.peers.results import loaded
from flowkit import Client, changes, messages
from flowkit._engine import NODE_MOVES, NODE_REPORTS, TASK_MOVES
from flowkit._exports.lines import AnyLine, HeaderLine
from flowkit.config import CommonConfig, CoordinatorConfig, GraphLimits, LogConfig, WorkerConfig
from flowkit.coordinator._builtin_functions import BUILTIN_FUNCTIONS
from flowkit.measures import MEASURES
from flowkit.task import STATUS_OF_MARK, Mark
from flowkit_kafka import KafkaConfig
from flowkit_mongo import MongoConfig
from flowkit_mongo._indexes import INDEXES
from flowkit_mongo._rights import ROLES, privileges
from flowkit_sqlite import SqliteConfig
from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._metric_table import FIGURES, METRICS
from flowkit_web import WebConfig
from flowkit_web._app import WebApp
from flowkit_web._problems import PROBLEMS
from flowkit_web._routes import ROUTES
from flowkit_web._webhook_config import WebhookConfig

DOCS = Path(__file__).parent
REGION = re.compile(r"(<!-- generated: (?P<name>[a-z_-]+) -->\n).*?(<!-- end -->)", re.DOTALL)

MARKS = {value: name.lower() for name, value in vars(Mark).items() if name.isupper()}


# ---------------------------------------------------------------- state charts


def chart(
    first: str,
    moves: Iterable[tuple[str, Sequence[str]]],
    *,
    labels: Callable[[str], str] = lambda _: "",
) -> str:
    """Return a Mermaid state diagram. ``labels`` returns the text on the arrows from a state."""
    lines = ["stateDiagram-v2", f"    [*] --> {first}"]
    for state, following in moves:
        lines += [f"    {state} --> {after}{labels(state)}" for after in following]
        if not following or labels(state):
            lines.append(f"    {state} --> [*]")
    return "\n".join(lines) + "\n"


def node_chart() -> str:
    return chart(
        "waiting",
        (
            (MARKS[mark], [MARKS[after] for after in MARKS if after in following])
            for mark, following in NODE_MOVES.items()
        ),
    )


def task_chart() -> str:
    moves = (
        (str(status), [str(after) for after in TASK_MOVES if after in following])
        for status, following in TASK_MOVES.items()
    )
    labels = {
        "finished": " : retry of a dead letter",
        "failed": " : retry",
        "cancelled": " : retry",
    }
    return chart("queued", moves, labels=lambda state: labels.get(state, ""))


def node_states() -> str:
    """Return a table of states with the status users see and the reports accepted in each."""
    rows = [
        (
            name,
            f"`{STATUS_OF_MARK[mark]}`",
            ", ".join(
                f"`{report.__name__}`" for report, marks in NODE_REPORTS.items() if mark in marks
            )
            or "none",
        )
        for mark, name in MARKS.items()
    ]
    return table(("state", "shown as", "reports that count"), rows)


# ---------------------------------------------------------------- tables


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return "\n".join(
        [
            *lines,
            *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows),
        ]
    )


def settings(model: type[BaseModel], *, without: type[BaseModel] | None = None) -> str:
    """Return a table of the fields of a configuration, except those of ``without``."""
    inherited = without.model_fields if without is not None else {}
    rows = [
        (f"`{name}`", f"`{_type(field.annotation)}`", _default(field), field.description or "")
        for name, field in model.model_fields.items()
        if name not in inherited
    ]
    return table(("field", "type", "default", "meaning"), rows)


def _type(annotation: Any) -> str:
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join(_type(part) for part in get_args(annotation))
    if get_origin(annotation) is Annotated:
        return _type(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return ", ".join(map(repr, get_args(annotation)))
    if annotation is type(None):
        return "none"
    if annotation is Ellipsis:
        return "..."
    name = getattr(annotation, "__name__", str(annotation))
    parts = ", ".join(map(_type, get_args(annotation)))
    return f"{name}[{parts}]" if parts else name


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return (
            "see below"
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            else "empty"
        )
    if field.default is None:
        return "none"
    if isinstance(field.default, bool):
        return str(field.default).lower()
    return f"{field.default:,}" if isinstance(field.default, int) else f"`{field.default}`"


def message_kinds() -> str:
    rows = []
    for model in get_args(get_args(messages.AnyMessage)[0]):
        own = [
            name
            for name in model.model_fields
            if name not in ("v", "kind", "task_id", "index", "attempt", "token")
        ]
        fields = ", ".join(f"`{name}`" for name in own)
        rows.append(
            (
                f"`{model.model_fields['kind'].default}`",
                " ".join((model.__doc__ or "").split()),
                fields,
            )
        )
    return table(("kind", "says", "fields of its own"), rows)


def functions() -> str:
    rows = [
        (f"`{name}`", _first_paragraph(function.__doc__))
        for name, function in BUILTIN_FUNCTIONS.items()
    ]
    return table(("function", "does"), rows)


def _first_paragraph(text: str | None) -> str:
    return " ".join((text or "").partition("\n\n")[0].split()).replace("``", "`")


def mongo_roles() -> str:
    """Return the commands of MongoDB's shell that create the roles."""
    lines = ["```js", 'const database = db.getSiblingDB("flowkit")']
    for role in ROLES:
        lines += [f'database.createRole({{role: "{role}", roles: [], privileges: [']
        for one in privileges(role, database="flowkit"):
            actions = ", ".join(f'"{action}"' for action in one["actions"])
            lines.append(
                f'  {{resource: {{db: "flowkit", collection: "{one["resource"]["collection"]}"}},'
                f" actions: [{actions}]}},"
            )
        lines.append("]})")
    return "\n".join([*lines, "```"])


def mongo_indexes() -> str:
    rows: Iterator[tuple[str, ...]] = (
        (
            f"`{{namespace}}_{index.collection}`",
            f"`{index.name}`",
            ", ".join(f"`{name}`{' ↓' if direction < 0 else ''}" for name, direction in index.keys),
            "yes" if index.unique else "",
        )
        for index in INDEXES
    )
    return table(("collection", "index", "keys", "unique"), rows)


def export_lines() -> str:
    rows = []
    for line in (HeaderLine, *get_args(AnyLine)):
        fields = ", ".join(f"`{name}`" for name in line.model_fields if name != "type")
        kind = f"`{line.model_fields['type'].default}`"
        rows.append((kind, _first_paragraph(line.__doc__), fields))
    return table(("type", "is", "fields"), rows)


def change_fields() -> str:
    rows = [
        (f"`{name}`", f"`{_type(field.annotation)}`", field.description or "")
        for name, field in changes.TaskChange.model_fields.items()
    ]
    return table(("field", "type", "meaning"), rows)


def change_schema() -> str:
    return f"```json\n{json.dumps(changes.json_schema(), indent=2, ensure_ascii=False)}\n```"


def pattern(path: Path) -> str:
    """Return a file of ``examples/patterns`` as a block of code."""
    return f"```{PATTERN_LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8')}```"


def web_routes() -> str:
    """Return a table of the routes of the web API."""
    rows = [
        (
            f"`{route.method} {route.path}`",
            "none" if route.role is None else f"`{route.role}`",
            " ".join((route.endpoint.__doc__ or "").partition("\n\n")[0].split()),
        )
        for route in ROUTES
    ]
    return table(("route", "role", "does"), rows)


def web_problems() -> str:
    """Return a table of the problems of the web API for errors of FlowKit."""
    rows = [
        (f"`{kind.__name__}`", str(status), f"`{name}`")
        for kind, (status, name) in PROBLEMS.items()
    ]
    return table(("error", "status", "name"), rows)


# ---------------------------------------------------------------- pages

PATTERN_LANGUAGES = {".yaml": "yaml", ".py": "python"}
PATTERNS = [
    path
    for path in sorted((DOCS.parent / "examples" / "patterns").iterdir())
    if path.suffix in PATTERN_LANGUAGES and path.stem != "handlers"
]


def measures() -> str:
    """Return the table of the measures."""
    rows = [
        f"| `{name}` | {', '.join(f'`{label}`' for label in one.labels)} |"
        f" {'adds up' if one.counts else 'seconds'} | {one.description} |"
        for name, one in MEASURES.items()
    ]
    return "\n".join(["| name | labels | value | meaning |", "| --- | --- | --- | --- |", *rows])


def process_metrics() -> str:
    """Return the table of the metrics of a process."""
    rows = [
        (
            f"`{METRICS[name]}`",
            "counter" if one.counts else "histogram",
            ", ".join(f"`{label}`" for label in one.labels),
            one.description,
        )
        for name, one in MEASURES.items()
    ]
    return table(("metric", "kind", "labels", "meaning"), rows)


def figures() -> str:
    """Return the table of the figures about an installation."""
    rows = [
        (f"`{name}`", ", ".join(f"`{label}`" for label in one.labels), one.description)
        for name, one in FIGURES.items()
    ]
    return table(("gauge", "labels", "meaning"), rows)


MEASURED = loaded(RESULTS)

GENERATORS: dict[str, Callable[[], str]] = {
    "performance-conditions": lambda: performance.conditions(MEASURED),
    "performance-processor": lambda: performance.processor_times(MEASURED),
    "performance-survival": lambda: performance.survival(MEASURED),
    "performance-times": lambda: performance.times(MEASURED),
    "node-states": node_states,
    "common-settings": lambda: settings(CommonConfig),
    "coordinator-settings": lambda: settings(CoordinatorConfig, without=CommonConfig),
    "worker-settings": lambda: settings(WorkerConfig, without=CommonConfig),
    "limit-settings": lambda: settings(GraphLimits),
    "log-settings": lambda: settings(LogConfig),
    "kafka-settings": lambda: settings(KafkaConfig),
    "mongo-settings": lambda: settings(MongoConfig),
    "sqlite-settings": lambda: settings(SqliteConfig),
    "web-problems": web_problems,
    "web-routes": web_routes,
    "web-settings": lambda: settings(WebConfig),
    "telemetry-settings": lambda: settings(TelemetryConfig),
    "webhook-settings": lambda: settings(WebhookConfig),
    "message-kinds": message_kinds,
    "measures": measures,
    "process-metrics": process_metrics,
    "figures": figures,
    "export-lines": export_lines,
    "change-fields": change_fields,
    "change-schema": change_schema,
    "functions": functions,
    "mongo-indexes": mongo_indexes,
    "mongo-roles": mongo_roles,
    **{f"pattern-{path.stem}": partial(pattern, path) for path in PATTERNS},
}

DIAGRAMS: dict[str, Callable[[], str]] = {"node-states": node_chart, "task-states": task_chart}
"""The sources of diagrams that follow from tables. ``docs/_diagrams.py`` draws them."""


def diagrams() -> dict[Path, str]:
    """Return the sources of the generated diagrams by file."""
    return {DOCS / "diagrams" / f"{name}.mmd": source() for name, source in DIAGRAMS.items()}


API_DESCRIPTION = DOCS.parent / "flowkit-web" / "ui" / "openapi.json"
"""Description of the API, from which the types of the page are made."""


def api_description() -> str:
    document = WebApp(Client(db="memory://"), WebConfig(), local=False).openapi()
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


PERFORMANCE_CHART = DOCS / "images" / "performance.svg"


def performance_chart() -> str:
    return chart_of_rates(MEASURED)


def files() -> dict[Path, str]:
    """Return the generated files with their texts."""
    return {
        **diagrams(),
        API_DESCRIPTION: api_description(),
        PERFORMANCE_CHART: performance_chart(),
    }


def generated(text: str) -> str:
    """Return the text of a page with current generated parts."""
    return REGION.sub(
        lambda found: f"{found[1]}\n{GENERATORS[found['name']]()}\n\n{found[3]}", text
    )


def pages() -> list[Path]:
    return sorted(DOCS.rglob("*.md"))


def main() -> None:
    for path in pages():
        before = path.read_text(encoding="utf-8")
        after = generated(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
    for path, source in files().items():
        path.write_text(source, encoding="utf-8")


if __name__ == "__main__":
    main()
