"""Each command in the documentation runs in a test, or is listed with the reason why not."""

import configparser
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
import typer

from flowkit.cli._app import app
from tests.docs.commands import (
    EXAMPLE_OF_TOX,
    NOT_RUN,
    NOT_RUN_LANGUAGES,
    NOT_RUN_PROGRAMS,
    Command,
    commands,
    commands_in_sentences,
    commands_of,
    commands_on,
    missing_lines,
    pages_with_commands,
)
from tests.docs.pages import ROOT, blocks, name_of
from tests.forks import run_fork
from tests.services.processes import started
from tests.services.support import Installation

PATIENCE_SEC = 120
FLOWKIT = re.compile(r"`(flowkit [^`]+)`")
SCRIPT = re.compile(r"python (tools/\w+\.py)\b(.*)")
LANGUAGES = {"sh", "text", "python", "yaml", "toml", "json", *NOT_RUN_LANGUAGES}
TOX_ENVIRONMENTS = re.compile(r"tox run [^\n`]*?-e ([a-z,-]+)")
SHOWN = {command.text for command in commands() if command.runs_in_checkout and command.output}
"""Commands that run on the page that shows their output, and on no other page."""


def runs_here(command: Command) -> bool:
    return command.runs_in_checkout and (bool(command.output) or command.text not in SHOWN)


IN_CHECKOUT = [
    page for page in pages_with_commands() if any(runs_here(each) for each in commands_on(page))
]


def test_each_command_runs_or_is_listed_with_a_reason() -> None:
    assert [
        str(command)
        for command in commands()
        if [
            command.runs_with_page,
            command.runs_in_checkout,
            command.runs_on_servers,
            command.runs_on_one_machine,
            command.reason is not None,
        ].count(True)
        != 1
    ] == []


def test_an_installation_from_a_checkout_names_every_package_that_it_needs() -> None:
    """The packages of a checkout require each other in a version that no registry may have."""
    checked = 0
    for command in commands():
        named = re.findall(r"\./(flowkit-\w+)(?:\[(\w+)\])?", command.text)
        if not command.text.startswith("pip install") or not named:
            continue
        checked += 1
        needed = {name for package, extra in named for name in siblings(package, extra)}
        assert needed <= {package for package, _ in named}, str(command)
    assert checked >= 4


def siblings(package: str, extra: str) -> set[str]:
    """Return the packages of this repository that a package with this extra requires."""
    project = tomllib.loads((ROOT / package / "pyproject.toml").read_text())["project"]
    required = project["dependencies"] + project.get("optional-dependencies", {}).get(extra, [])
    return {match[0] for each in required if (match := re.match(r"flowkit-\w+", each))}


def test_a_command_in_a_sentence_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```sh\ntox run -e a\n```\n\nThen `LIMIT=1 python\nx.py` and `python`, see `x.py`.\n"
    )
    assert [(each.line, each.text) for each in commands_in_sentences(page)] == [
        (5, "LIMIT=1 python x.py")
    ]


@pytest.mark.parametrize("page", pages_with_commands(), ids=name_of)
def test_commands_are_in_no_block_of_another_language(page: Path) -> None:
    assert [block.line for block in blocks(page) if block.language not in LANGUAGES] == []
    assert [
        block.line
        for block in blocks(page)
        if block.language == "text" and re.search(r"^ *[$>#%] ", block.code, re.MULTILINE)
    ] == []


def test_each_listed_command_is_in_the_documentation() -> None:
    texts = {command.text for command in commands()}
    assert NOT_RUN.keys() - texts == set()
    assert [
        beginning
        for beginning in NOT_RUN_PROGRAMS
        if not any(text.startswith(beginning) for text in texts)
    ] == []


def test_each_test_that_a_reason_names_is_there() -> None:
    reasons = [*NOT_RUN.values(), *NOT_RUN_LANGUAGES.values(), *NOT_RUN_PROGRAMS.values()]
    named = re.findall(r"tests/[\w/.]+\w", " ".join(reasons))
    assert [name for name in named if not (ROOT / name).exists()] == []


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("page", pages_with_commands(), ids=name_of)
def test_the_verbs_options_and_environments_that_a_page_names_exist(page: Path) -> None:
    texts = [command.text for command in commands_on(page)]
    texts += FLOWKIT.findall(page.read_text(encoding="utf-8"))
    assert [
        fault for text in texts if text.startswith("flowkit ") for fault in unknown_words(text)
    ] == []
    named = {
        name
        for found in TOX_ENVIRONMENTS.findall(page.read_text(encoding="utf-8"))
        for name in found.split(",")
    }
    assert named - tox_environments() == set()


def test_the_options_of_scripts_exist() -> None:
    named: dict[str, set[str]] = {}
    for command in commands():
        if found := SCRIPT.match(command.text):
            named.setdefault(found[1], set()).update(re.findall(r"--[\w-]+", found[2]))
    assert [
        f"{script} {option}"
        for script, options in named.items()
        for option in options - printed_options(script)
    ] == []


def printed_options(script: str) -> set[str]:
    """Return the options in the help of a script."""
    return set(re.findall(r"--[\w-]+", printed_by(["python", script, "--help"], ROOT)))


def unknown_words(text: str) -> Iterator[str]:
    """Yield the verbs and options of a ``flowkit`` command that the command line does not have."""
    # The class is from click or from typer's copy of click: it depends on the version.
    command: Any = typer.main.get_command(app)
    for word in text.partition(" | ")[0].split()[1:]:
        if word.startswith("-"):
            if word.partition("=")[0] not in {
                name for option in command.params for name in option.opts
            } | {"--help"}:
                yield f"{text}: {word}"
        elif verbs := getattr(command, "commands", None):
            if word.isupper():  # a placeholder for any verb
                return
            if word not in verbs:
                yield f"{text}: {word}"
                return
            command = verbs[word]


def test_an_unknown_verb_and_an_unknown_option_are_found() -> None:
    assert list(unknown_words("flowkit graph draw flow.yaml")) == [
        "flowkit graph draw flow.yaml: draw"
    ]
    assert list(unknown_words("flowkit graph show flow.yaml --svg")) == [
        "flowkit graph show flow.yaml --svg: --svg"
    ]
    assert list(unknown_words("flowkit graph show flow.yaml --json")) == []


def tox_environments() -> set[str]:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    names = {name.removeprefix("testenv:") for name in parser.sections()} | {"tests"}
    return {one for name in names for one in expanded(name)}


def expanded(name: str) -> Iterator[str]:
    """Expand ``tests-{core,kafka}`` to one name each."""
    if found := re.fullmatch(r"(.*)\{(.*)\}(.*)", name):
        yield from (found[1] + part + found[3] for part in found[2].split(","))
    else:
        yield name


def test_lines_that_were_not_printed_are_found() -> None:
    assert missing_lines("a: 1\ntook … s\n", "took 3 s\nb\na: 1  \n") == []
    assert missing_lines("a: 1\ntook … s\n", "a: 12\ntook 3 s or so\n") == ["a: 1", "took … s"]


# ---------------------------------------------------------------- in a copy of the repository


@pytest.mark.parametrize("page", IN_CHECKOUT, ids=name_of)
def test_the_commands_for_examples_run_one_after_the_other(page: Path, tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for block in blocks(page):
        ran = [command for command in commands_of(page, block) if runs_here(command)]
        printed = "".join(
            printed_by(on_part_of_the_library(expand_tox(command.text), tmp_path), tmp_path)
            for command in ran
        )
        assert not ran or missing_lines(block.output, printed) == []


def printed_by(words: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if words[0] == "flowkit":
        done = run_fork(
            "flowkit.cli",
            words[1:],
            folder=folder,
            environment=environment,
            timeout=PATIENCE_SEC,
            strict=True,
        )
    else:
        done = subprocess.run(
            invocation(words),
            cwd=folder,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=PATIENCE_SEC,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def expand_tox(text: str) -> list[str]:
    """Replace ``tox run -e example`` by the command of that environment."""
    if not text.startswith(EXAMPLE_OF_TOX):
        return shlex.split(text)
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "tox.ini")
    arguments = text.removeprefix(EXAMPLE_OF_TOX).strip().removeprefix("--").strip()
    return shlex.split(parser["testenv:example"]["commands"].replace("{posargs}", arguments))


def on_part_of_the_library(words: list[str], folder: Path) -> list[str]:
    """Limit the report on the standard library to a part of it: all of it takes 20 seconds."""
    as_module = "examples.stdlib_report" in words
    if not as_module and "examples/stdlib_report/flow.yaml" not in words:
        return words
    shutil.copytree(
        Path(sysconfig.get_paths()["stdlib"]) / "json", folder / "library", dirs_exist_ok=True
    )
    if as_module:
        params = json.loads(words[3]) if len(words) > 3 else {}
        return [*words[:3], json.dumps({**params, "root": str(folder / "library")})]
    given = words.index("--params") if "--params" in words else len(words)
    params = json.loads(words[given + 1]) if given < len(words) else {}
    return [
        *words[:given],
        *words[given + 2 :],
        "--params",
        json.dumps({**params, "root": str(folder / "library")}),
    ]


def invocation(words: list[str]) -> list[str]:
    return [
        sys.executable,
        "-W",
        "error",
        *(["-m", "flowkit.cli"] if words[0] == "flowkit" else []),
        *words[1:],
    ]


# ---------------------------------------------------------------- on real servers


@pytest.mark.services
@pytest.mark.timeout(300)
async def test_the_commands_for_real_servers_run_the_example(
    kafka_address: str, mongo_address: str, tmp_path: Path
) -> None:
    shown = [command.text for command in commands() if command.runs_on_servers]
    *services, submit = ([*on_part_of_the_library(shlex.split(text), tmp_path)] for text in shown)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    installation = Installation(kafka=kafka_address, mongo=mongo_address)
    addresses = {
        "FLOWKIT_BUS": installation.bus,
        "FLOWKIT_DB": installation.db,
        "FLOWKIT_NAMESPACE": installation.namespace,
    }
    environment = {**os.environ, **addresses, "NO_COLOR": "1"}
    running = [
        started(
            invocation(words),
            log=tmp_path / f"{words[1]}.log",
            environment=environment,
            folder=tmp_path,
        )
        for words in services
    ]
    try:
        with anyio.fail_after(PATIENCE_SEC):
            done = await anyio.run_process(
                invocation(submit), cwd=tmp_path, env=environment, check=False
            )
        assert done.returncode == 0, done.stderr.decode() + "".join(
            process.logged() for process in running
        )
        assert "The largest modules" in done.stdout.decode()
        for process in running:
            process.tell()
        assert [await process.end() for process in running] == [0] * len(running)
    finally:
        for process in running:
            process.kill()
        await installation.drop()
