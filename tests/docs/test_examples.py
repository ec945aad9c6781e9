"""The Python blocks and commands of each page run and print what the page says.

The blocks of a page run in order, in a separate folder. A block with a title is a file there. A
block without a title runs as a program that may use ``await`` at the top level. A comment at the
end of a ``print`` is its output. A ``text`` block after commands shows lines of their output.
"""

import ast
import asyncio
import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest
import yaml

from flowkit import CoordinatorConfig, Graph
from flowkit.plugins import Plugins
from flowkit_kafka import KafkaConfig
from flowkit_mongo import MongoConfig
from tests.docs.commands import commands_of, missing_lines
from tests.docs.pages import FENCE, ROOT, Block, blocks, name_of, pages
from tests.forks import run_fork

pytest_plugins = ["pytester"]

SITE_FENCE = re.compile(r'\w*|\w+ title="[^"]+"|\{\.\w+ \.notest\}')
"""Words after the backticks for which the site shows a block. After others, the rest of the page is
lost.
"""
STANDS_FOR = {"your_mongo_db": '"memory://"'}
PROMISED_OUTPUT = re.compile(r"^\s*print\(.*\)\s{2,}# (?P<text>.+)$", re.MULTILINE)

WITH_PYTHON = [
    page for page in pages() if any(block.language == "python" for block in blocks(page))
]
DOCUMENTS = [
    pytest.param(block, id=f"{name_of(page)}:{block.line}")
    for page in pages()
    for block in blocks(page)
    if block.language in ("yaml", "json") and block.runs
]
CONFIGURATIONS = [
    pytest.param(block, id=f"{name_of(page)}:{block.line}")
    for page in pages()
    for block in blocks(page)
    if block.language == "toml" and "[project" not in block.code
]


def test_the_site_shows_all_blocks() -> None:
    wrong = [
        f"{name_of(page)}: {fence['info']}"
        for page in pages()
        if page.is_relative_to(ROOT / "docs")
        for fence in FENCE.finditer(page.read_text(encoding="utf-8"))
        if not SITE_FENCE.fullmatch(fence["info"].strip())
    ]
    assert wrong == []


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_the_code_of_a_page_runs(
    page: Path,
    pytester: pytest.Pytester,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here = [block for block in blocks(page) if block.runs]
    pytester.makefile(".ini", pytest="[pytest]\naddopts = -p no:asyncio\nfilterwarnings = error\n")
    pytester.syspathinsert()
    for block in here:
        if block.title:
            (pytester.path / block.title).write_text(_with_stand_ins(block.code), encoding="utf-8")
    # Generic models are looked up in the module of the code that names them.
    module = ModuleType("code_of_a_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    scope = vars(module)
    with asyncio.Runner() as runner:
        for block in here:
            _run(block, page, pytester, runner, scope)
    printed = capfd.readouterr().out
    for promise in PROMISED_OUTPUT.finditer(
        "".join(block.code for block in here if block.language == "python")
    ):
        assert promise["text"] in printed


def _run(
    block: Block,
    page: Path,
    pytester: pytest.Pytester,
    runner: asyncio.Runner,
    scope: dict[str, Any],
) -> None:
    if block.language == "sh":
        ran = [command.text for command in commands_of(page, block) if command.runs_with_page]
        printed = "".join(_command_succeeds(*shlex.split(text)[1:]) for text in ran)
        assert not ran or missing_lines(block.output, printed) == []
    elif block.language != "python":
        return
    elif block.title and block.title.startswith("test_"):
        outcomes = pytester.runpytest_inprocess(block.title).parseoutcomes()
        assert outcomes.keys() <= {"passed", "skipped"}
        assert outcomes["passed"] >= len(
            re.findall(r"^ *(?:async )?def test_", block.code, re.MULTILINE)
        )
    elif block.title:
        _program_succeeds(block.title)
    else:
        code = _compiled(
            _with_stand_ins(block.code), f"{name_of(page)}, block at line {block.line}"
        )
        result = eval(code, scope)
        if inspect.iscoroutine(result):
            runner.run(result)


def _with_stand_ins(code: str) -> str:
    for name, value in STANDS_FOR.items():
        code = code.replace(name, value)
    return code


def _compiled(code: str, where: str) -> CodeType:
    compiled = compile(code, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(compiled, CodeType)
    return compiled


def _program_succeeds(file: str) -> str:
    """Run a program in a new Python and return its output."""
    return _output(
        subprocess.run(
            [sys.executable, "-W", "error", file],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    )


def _command_succeeds(*arguments: str) -> str:
    """Run the command line and return its output."""
    return _output(run_fork("flowkit.cli", arguments, folder=Path.cwd(), timeout=60, strict=True))


def _output(done: "subprocess.CompletedProcess[str]") -> str:
    print(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("block", DOCUMENTS)
def test_a_graph_that_is_shown_is_a_graph(block: Block) -> None:
    document = json.loads(block.code) if block.language == "json" else yaml.safe_load(block.code)
    if isinstance(document, dict) and "nodes" in document:
        Graph.parse(block.code, functions=Plugins().functions)


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/coming-from/*.md")), ids=name_of)
def test_a_page_for_users_of_another_tool_translates_its_words_and_shows_a_flow_twice(
    page: Path,
) -> None:
    assert re.search(
        rf"^\| {page.stem.capitalize()} \| FlowKit \|$", page.read_text(), re.MULTILINE
    )
    assert [block.runs for block in blocks(page) if block.language == "python"] == [False, True]


@pytest.mark.parametrize("block", CONFIGURATIONS)
def test_a_configuration_that_is_shown_is_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text(block.code, encoding="utf-8")
    config = CoordinatorConfig.load(tmp_path / "coordinator.toml")
    KafkaConfig.parse(config.options.get("kafka", {}))
    MongoConfig.from_options(config.options.get("mongo", {}))


def test_the_quick_example_prints_the_id_and_its_task_finishes(pytester: pytest.Pytester) -> None:
    titled = {
        block.title: _with_stand_ins(block.code) for block in blocks(pages()[0]) if block.title
    }
    (pytester.path / "your_handlers.py").write_text(titled["your_handlers.py"])
    added = (
        "    view = await coordinator.wait(task_id, 30)\n    print(view.status,"
        " view.nodes['process_data'].metrics)\n"
    )
    printed_id = '    print(f"Created task: {task_id}")\n'
    assert printed_id in titled["quick_example.py"]
    (pytester.path / "waits.py").write_text(
        titled["quick_example.py"].replace(printed_id, printed_id + added)
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "waits.py"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert re.fullmatch(
        r"Created task: [0-9a-f]{32}\nfinished \{'characters': 11\}\n", done.stdout
    ), done.stderr
    assert done.stderr == ""
