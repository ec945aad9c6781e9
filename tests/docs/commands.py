"""Commands in the documentation, and the place where each is tested."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.pages import FENCE, ROOT, Block, blocks, name_of, pages

COMMENT = re.compile(r"\s{2,}#.*$")
CONTINUED = re.compile(r"\\\n\s*")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:\S*/)?(?:python3?|pip|pytest|tox|pre-commit|py-spy|\w+\.(?:py|sh)) \S"
    r"|\.ci/run$"
)
"""The beginning of a command in a sentence. ``flowkit`` is not here: its words are checked."""
EXAMPLE_OF_TOX = ".venv/bin/tox run -qq -e example"

WITH_PAGE = re.compile(r"flowkit (run|graph|plugins|show) ")
"""Commands that run in a folder with the files of the same page."""
IN_CHECKOUT = re.compile(
    rf"flowkit run examples[/.]|python -m examples\.|python -c |{re.escape(EXAMPLE_OF_TOX)} -- "
)
"""Commands that run in a copy of the repository's root."""
ON_SERVERS = ("docs/how-to/run-an-example.md", re.compile(r"flowkit (coordinator|worker|submit)\b"))
"""The page whose processes run on a real Kafka and a real MongoDB."""

ON_ONE_MACHINE = (
    "docs/how-to/one-machine.md",
    re.compile(r"python -c |rm |cp |flowkit (ls|export) "),
)
"""The page whose commands run on the file of an installation at work."""

EDITABLE = (
    "-e './flowkit-core[cli]' -e ./flowkit-kafka -e ./flowkit-mongo -e ./flowkit-sqlite"
    " -e './flowkit-telemetry[otlp]' -e ./flowkit-testing -e ./flowkit-web"
)
INSTALLS = "it installs packages; tox does the same for each environment"
SERVERS_FOR_EXPERIMENTS = (
    "it runs until Ctrl-C; the fixtures in tests/servers start the same servers"
)
OWN_SERVERS = (
    "it needs the reader's configuration; the verb runs in tests/services/test_processes.py"
)
OWN_LETTERS = (
    "it needs the reader's servers; tests/cli/test_dead_letter_verbs.py runs the verbs, and"
    " tests/web/test_webhook_deliveries.py retries such letters"
)
UNTIL_STOPPED = (
    "it works with a process that runs until Ctrl-C; tests/cli/test_dev.py runs the verb"
)
KAFKA_TOOL = "it is a tool of Kafka's distribution, which the tests do not fetch"

NOT_RUN = {
    "python3 -m venv .venv && .venv/bin/pip install -q tox && .venv/bin/tox run -qq -e example": (
        "it installs packages; the command of the environment runs in tests/docs/test_commands.py"
    ),
    "python3 -m venv .venv && .venv/bin/pip install -q tox && .venv/bin/tox run -qq -e tests": (
        "it is the command that runs the tests"
    ),
    "python3 -m venv .venv && . .venv/bin/activate": INSTALLS,
    "pip install './flowkit-core[cli]' ./flowkit-sqlite": INSTALLS,
    "pip install './flowkit-core[cli]' ./flowkit-sqlite ./flowkit-testing": INSTALLS,
    "pip install './flowkit-core[cli]' ./flowkit-sqlite ./flowkit-kafka ./flowkit-mongo": INSTALLS,
    f"pip install {EDITABLE} --group dev": INSTALLS,
    f"pip install {EDITABLE} --group dev --group docs": INSTALLS,
    "pip install pre-commit && pre-commit install": INSTALLS,
    "pip install --group peers": INSTALLS,
    "pip install flowkit-core": INSTALLS,
    "pip install 'flowkit-core[cli]'": INSTALLS,
    "pip install 'flowkit-core[cli,fast]'": INSTALLS,
    "pip install flowkit-core flowkit-kafka": INSTALLS,
    "pip install flowkit-core flowkit-mongo": INSTALLS,
    "pip install flowkit-core flowkit-sqlite": INSTALLS,
    "pip install flowkit-testing": INSTALLS,
    "pip install 'flowkit-core[cli]' flowkit-web": INSTALLS,
    "pip install 'flowkit-core[cli]' flowkit-telemetry": INSTALLS,
    "pip install 'flowkit-telemetry[otlp]'": INSTALLS,
    "pytest test_orders.py": "the file is on the same page; tests/docs/test_examples.py runs it",
    "pip install cryptography": INSTALLS,
    "python tools/servers.py up": SERVERS_FOR_EXPERIMENTS,
    ".tox/tests/bin/python tools/servers.py up": SERVERS_FOR_EXPERIMENTS,
    "pytest --flowkit-sim-seed=17": "tests/simulation/test_marker.py uses the option",
    "FLOWKIT_TEST_FUZZ_SECONDS=600 python -m pytest tests/fuzz": (
        "it takes minutes; tests/fuzz runs for seconds with the other tests"
    ),
    ".ci/run": "it is the command that runs the tests and the checks",
    "flowkit dev handlers.py": UNTIL_STOPPED,
    "flowkit submit greet.yaml --wait --db sqlite:///.flowkit/flowkit.db": UNTIL_STOPPED,
    "flowkit coordinator --config coordinator.toml": OWN_SERVERS,
    "flowkit coordinator --metrics-port 9464 --db mongodb://db1/flowkit": (
        "it needs the reader's MongoDB; tests/telemetry/test_metrics_port.py reads the same paths"
    ),
    "flowkit worker --config worker.toml --handlers shop.handlers": OWN_SERVERS,
    "flowkit doctor --config coordinator.toml": OWN_SERVERS,
    **dict.fromkeys(
        (
            (
                "kubectl create secret generic flowkit"
                " --from-literal=FLOWKIT_DB=mongodb://USER:PASSWORD@HOST/flowkit"
            ),
            "kubectl apply -f flowkit.yaml",
            "kubectl exec deploy/flowkit-coordinator -- flowkit token add ann --role admin",
            "docker compose up --detach",
            "docker compose run --rm web token add ann --role admin",
            "docker compose --profile web up --detach",
        ),
        "it needs a cluster or containers; tests/docs/test_deploy.py checks the files",
    ),
    "flowkit dlq ls --kind webhook --config coordinator.toml": OWN_LETTERS,
    "flowkit dlq retry --kind webhook --config coordinator.toml": OWN_LETTERS,
    "flowkit webhooks --config coordinator.toml": (
        "it needs the reader's servers and receiver; tests/web/test_webhooks.py runs what it calls"
    ),
    "flowkit import export.jsonl --db mongodb://db1/flowkit": (
        "it needs the reader's MongoDB; tests/services/test_exports.py imports into another one"
    ),
    "python -m tools.plain_english": "it is part of the environment lint, which .ci/run runs",
    "python docs/_generate.py": (
        "it writes into the pages; tests/docs/test_generated.py compares what it would write"
    ),
    "python docs/_diagrams.py": (
        "it needs a drawing program; tests/docs/test_diagrams.py checks that no drawing is outdated"
    ),
    "python -m tests.page.screenshots": "it needs Chromium, and replaces images of the pages",
}
NOT_RUN_LANGUAGES = {
    "js": (
        "it is for MongoDB's shell, which the tests do not fetch; tests/mongo/test_rights.py"
        " creates the same roles"
    ),
}
"""The reason why no test runs the commands in blocks of a language."""
NOT_RUN_PROGRAMS = {
    "flowkit flow ": "it needs the file of a coordinator: tests/cli/test_flow_verbs.py",
    "flowkit schedule ": "it needs the file of a coordinator: tests/cli/test_schedule_verbs.py",
    "flowkit submit --flow ": "it needs the file of a coordinator: tests/cli/test_flow_verbs.py",
    "flowkit web ": "it runs until Ctrl-C: tests/web/test_verbs.py",
    "flowkit token ": "it needs a store: tests/web/test_verbs.py",
    "curl ": "it needs a server: tests/web sends the same requests",
    "flowkit trigger ": "it needs the file of a coordinator: tests/cli/test_trigger_verbs.py",
    "flowkit cache rm ": "it needs the file of a coordinator: tests/cli/test_cache_verbs.py",
    "flowkit logs TASK": "it needs a task that has logged: tests/cli/test_log_verbs.py",
    "kafka-topics.sh ": KAFKA_TOOL,
    "kafka-consumer-groups.sh ": KAFKA_TOOL,
    "kafka-acls.sh ": f"{KAFKA_TOOL}; tests/services/test_rights.py grants the rights of the page",
    "python tools/chaos.py": "it takes 20 minutes; tests/chaos/test_chaos.py runs for two",
    "python tools/trigger_records.py": "it takes minutes; tests/kafka has its promises in small",
    "python tools/campaign.py": (
        "it takes 46 minutes; tests/simulation/test_standard_scenarios.py runs the same scenarios"
    ),
    "py-spy ": "it is another project's tool, which the tests do not install",
    "python -m benchmarks.": "it measures for minutes",
    "tox run ": "tests/docs/test_commands.py checks that the environment is there",
}
"""The reason why no test runs a program, by the beginning of the command."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command in a block of the language ``sh``, or in a sentence."""

    page: Path
    line: int
    text: str
    output: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}: {self.text}"

    @property
    def runs_with_page(self) -> bool:
        return WITH_PAGE.match(self.text) is not None and any(
            block.title for block in blocks(self.page)
        )

    @property
    def runs_in_checkout(self) -> bool:
        others = self.runs_with_page or self.runs_on_one_machine
        return not others and IN_CHECKOUT.match(self.text) is not None

    @property
    def runs_on_servers(self) -> bool:
        page, verbs = ON_SERVERS
        return name_of(self.page) == page and verbs.match(self.text) is not None

    @property
    def runs_on_one_machine(self) -> bool:
        page, verbs = ON_ONE_MACHINE
        return name_of(self.page) == page and verbs.match(self.text) is not None

    @property
    def reason(self) -> str | None:
        """Return the reason why no test runs it, or None."""
        reasons = (
            reason
            for beginning, reason in NOT_RUN_PROGRAMS.items()
            if self.text.startswith(beginning)
        )
        return NOT_RUN.get(self.text) or next(reasons, None)


def commands_of(page: Path, block: Block) -> Iterator[Command]:
    """Yield the commands of a block, without comments and with continued lines joined."""
    if block.language == "sh":
        for line in CONTINUED.sub("", block.code).splitlines():
            if text := COMMENT.sub("", line).strip():
                yield Command(page, block.line, text, block.output)


def pages_with_commands() -> list[Path]:
    """Return the pages for users and for contributors."""
    others = ("CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md", "changes/README.md")
    return [*pages(), *(ROOT / name for name in others), *sorted(ROOT.glob("examples/*/README.md"))]


def commands_in_sentences(page: Path) -> Iterator[Command]:
    """Yield the commands of other programs than ``flowkit`` in the text between the blocks."""
    text = FENCE.sub(lambda block: "\n" * block[0].count("\n"), page.read_text(encoding="utf-8"))
    for found in INLINE.finditer(text):
        command = " ".join(found[1].split())
        if PROGRAM.match(command):
            yield Command(page, text.count("\n", 0, found.start()) + 1, command, "")


def commands_on(page: Path) -> list[Command]:
    in_blocks = [command for block in blocks(page) for command in commands_of(page, block)]
    return [*in_blocks, *commands_in_sentences(page)]


def commands() -> list[Command]:
    return [command for page in pages_with_commands() for command in commands_on(page)]


def missing_lines(shown: str, printed: str) -> list[str]:
    """Return the lines of a page that the commands did not print. ``…`` stands for any text."""
    found = [line.rstrip() for line in printed.splitlines()]
    patterns = {
        line: re.compile(".*".join(map(re.escape, line.rstrip().split("…"))))
        for line in shown.splitlines()
    }
    return [line for line, pattern in patterns.items() if not any(map(pattern.fullmatch, found))]
