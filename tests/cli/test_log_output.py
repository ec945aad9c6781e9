"""Log lines name their task, and every line can be written to every stream."""

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr
from functools import reduce
from typing import Any

import pytest

from flowkit.cli._log_output import JsonLines, PlainLines, StderrHandler
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import graph, node


def line(message: str, **extra: Any) -> str:
    record = logging.LogRecord("flowkit", logging.INFO, __file__, 1, message, (), None)
    vars(record).update(extra)
    return PlainLines("%(levelname)s %(message)s").format(record)


def test_a_line_of_text_ends_with_the_ids_that_its_message_does_not_have() -> None:
    assert line("it broke", task_id="t1", node_id="a") == "INFO it broke (task t1, node a)"
    assert line("Node a broke", task_id="t1", node_id="a") == "INFO Node a broke (task t1)"
    assert line("Task t1 started", task_id="t1") == "INFO Task t1 started"
    assert line("ready") == "INFO ready"
    assert line("it broke", task_id="t\n1") == "INFO it broke (task t\\n1)"


@handler("work")
async def work(item: Any) -> Any:
    if item == "bad":
        raise ValueError("not good")
    return item


async def test_a_coordinator_logs_the_start_and_the_end_of_each_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flowkit")
    async with Cluster(handlers=[work]) as cluster:
        good = await cluster.run({"nodes": [{"node_id": "a", "type": "work"}]})
        bad = await cluster.run(
            {"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": "bad"}}]}
        )
        stopped = await cluster.client.create_task(
            graph={"nodes": [{"node_id": "a", "type": "unserved"}]}
        )
        await cluster.client.cancel(stopped, "no longer needed")
        await cluster.client.wait(stopped)
    said = {
        (record.__dict__["action"], record.__dict__["task_id"]): record
        for record in caplog.records
        if record.__dict__.get("action", "").startswith("task_")
    }
    started = {("task_started", good.id), ("task_started", bad.id)}
    assert set(said) == started | {
        ("task_finished", good.id),
        ("task_failed", bad.id),
        ("task_cancelled", stopped),
    }
    assert (
        said["task_failed", bad.id]
        .getMessage()
        .endswith("node 'a' failed: bad_input: ValueError: not good")
    )
    assert said["task_failed", bad.id].levelno == logging.WARNING
    assert said["task_cancelled", stopped].getMessage().endswith(": no longer needed")


@pytest.mark.parametrize(
    ("on_timeout", "level"), [("fail", logging.WARNING), ("skip", logging.INFO)]
)
async def test_a_coordinator_logs_a_node_that_has_exceeded_a_time_limit(
    on_timeout: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flowkit")
    io = {"signal": "go", "timeout_sec": 60, "on_timeout": on_timeout}
    async with Cluster() as cluster:
        view = await cluster.run(graph(node("a", "wait_signal", io=io)))
    (record,) = [one for one in caplog.records if one.__dict__.get("action") == "node_timed_out"]
    assert record.levelno == level
    assert (record.__dict__["task_id"], record.__dict__["node_id"]) == (view.id, "a")
    assert record.getMessage().endswith("has exceeded a time limit: signal_timeout")


# ---------------------------------------------------------------- encodings


class Stderr(io.TextIOWrapper):
    """Stream with one encoding that rejects other characters."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)

    def lines(self) -> list[str]:
        self.flush()
        return self.buffer.getvalue().decode(self.encoding).splitlines()  # type: ignore[attr-defined]


@pytest.fixture
def failures(monkeypatch: pytest.MonkeyPatch) -> list[BaseException | None]:
    """Records that handlers of the logging module could not write."""
    failures: list[BaseException | None] = []
    monkeypatch.setattr(
        logging.Handler, "handleError", lambda handler, record: failures.append(sys.exc_info()[1])
    )
    return failures


FORMATTERS = {"text": PlainLines("%(levelname)s %(message)s"), "json": JsonLines()}


def shown(form: str, log: Callable[[logging.Logger], None], encoding: str = "utf-8") -> list[str]:
    """Return the lines that the command line writes for the log records."""
    stderr, shows = Stderr(encoding), StderrHandler()
    shows.setFormatter(FORMATTERS[form])
    logger = logging.getLogger("flowkit.shown")
    logger.propagate = False
    logger.addHandler(shows)
    try:
        with redirect_stderr(stderr):
            log(logger)
    finally:
        logger.removeHandler(shows)
        logger.propagate = True
    return stderr.lines()


TEXTS = {
    "half of a pair": "bad \ud800 text",
    "both halves": "bad \ud83d\ude00 text",
    "beyond ASCII": "Grüße \u2603 \U0001f600",
    "controls": "a\nb\x1b[31m\0",
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "utf-16", "cp1252"])
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("form", FORMATTERS)
def test_every_text_can_be_logged_in_every_encoding(
    failures: list[BaseException | None], encoding: str, text: str, form: str
) -> None:
    extra = {"task_id": text, "seen": {text: [text, text.encode("utf-8", "surrogatepass")]}}

    def log(logger: logging.Logger) -> None:
        try:
            raise ValueError(text)
        except ValueError:
            logger.exception("it failed: %s", text, extra=extra)

    lines = shown(form, log, encoding)
    assert failures == []
    assert "it failed: " in lines[0]
    if form == "json":
        (line,) = lines
        assert json.loads(line)["message"].encode(
            "utf-8", "backslashreplace"
        ) == f"it failed: {text}".encode("utf-8", "backslashreplace")
        assert "ValueError" in json.loads(line)["traceback"]
    else:
        assert any("ValueError" in line for line in lines)


class NoText:
    def __str__(self) -> str:
        raise RuntimeError("no text today")


def cyclic() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def deep() -> Any:
    return reduce(lambda inner, _: [inner], range(5_000), 1)


def huge() -> int:
    return 10**5000


@pytest.mark.parametrize(
    ("make", "error"),
    [(NoText, "RuntimeError: no text today"), (deep, "RecursionError"), (huge, "ValueError")],
)
@pytest.mark.parametrize("form", FORMATTERS)
def test_a_line_that_cannot_be_formatted_is_replaced_by_one_that_says_where_it_was_logged(
    failures: list[BaseException | None], make: Any, error: str, form: str
) -> None:
    (line,) = shown(form, lambda logger: logger.warning("it is %s", make()))
    assert failures == []
    assert f"Cannot format the log record of {__file__}, line " in line
    assert f": {error}" in line


def test_a_cyclic_value_does_not_fail_the_code_that_logs_it(
    failures: list[BaseException | None],
) -> None:
    (line,) = shown("json", lambda logger: logger.warning("done", extra={"seen": cyclic()}))
    assert failures == []
    assert "nested more than 50 levels deep" in json.loads(line)["seen"]


async def test_an_error_with_half_of_a_surrogate_pair_can_be_logged_by_every_handler(
    failures: list[BaseException | None],
) -> None:
    """The handlers of a program that runs FlowKit format errors by themselves."""

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        async def clean_up() -> None:
            raise ValueError("cleaned \ud800")

        ctx.on_cleanup(clean_up)
        raise RuntimeError("bad \ud800 text")

    class Observer:
        def flowkit_task_changed(self, after: Any) -> None:
            raise ValueError("seen \ud800")

    stream = Stderr("utf-8")
    own = logging.StreamHandler(stream)
    logging.getLogger("flowkit").addHandler(own)
    async with Cluster(handlers=[work], plugins=[Observer()]) as cluster:
        await cluster.run({"nodes": [{"node_id": "a", "type": "work", "retry_policy": {"max": 0}}]})
    logging.getLogger("flowkit").removeHandler(own)
    assert failures == []
    written = "\n".join(stream.lines())
    for text in (
        "RuntimeError: bad \\ud800 text",
        "ValueError: cleaned \\ud800",
        "ValueError: seen \\ud800",
    ):
        assert text in written
    assert "Traceback (most recent call last)" in written


LOGGERS = """
import logging, sys
from flowkit.cli import _log_output

exec(sys.argv[1])
for name in ("flowkit.worker", "shop.handlers", "pymongo.topology", "uvicorn.error"):
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger(name).log(level, "")
"""


@pytest.mark.parametrize(
    ("setup", "of_flowkit", "of_users", "of_libraries"),
    [
        ("service(Level.DEBUG, as_json=False)", "DEBUG", "DEBUG", "WARNING"),
        ("service(Level.INFO, as_json=False)", "INFO", "INFO", "WARNING"),
        ("service(Level.ERROR, as_json=False)", "ERROR", "ERROR", "ERROR"),
        ("run()", "ERROR", "INFO", "WARNING"),
        ("dev(())", "WARNING", "INFO", "WARNING"),
    ],
)
def test_what_users_log_is_shown_from_the_level_on_and_of_libraries_only_warnings(
    setup: str, of_flowkit: str, of_users: str, of_libraries: str
) -> None:
    setup = f"Level = _log_output.Level; _log_output.log_{setup}"
    logged = subprocess.run(
        [sys.executable, "-c", LOGGERS, setup], capture_output=True, text=True, check=True
    )
    lowest: dict[str, str] = {}
    for line in logged.stderr.splitlines():
        level, name = re.search(r"([A-Z]+) +([a-z.]+):", line).groups()
        lowest.setdefault(name, level)
    assert lowest == {
        "flowkit.worker": of_flowkit,
        "shop.handlers": of_users,
        "pymongo.topology": of_libraries,
        "uvicorn.error": of_libraries,
    }
