"""The command line and its reference page agree."""

import re

from flowkit.cli._app import VERBS
from tests.cli.conftest import Cli
from tests.cli.reference import PAGE, regenerated


def test_the_page_lists_the_current_verbs():
    page = PAGE.read_text(encoding="utf-8")
    assert page == regenerated(page), "run: python -m tests.cli.reference"


def test_every_verb_of_the_contract_is_there():
    promised = (
        "demo run worker coordinator submit ls show watch explain cancel pause resume retry"
        " artifacts plugins doctor graph_check graph_show dlq_ls"
    )
    assert set(promised.replace("_", "-").split()) <= {
        verb.words.replace(" ", "-") for verb in VERBS
    }


def test_every_verb_has_a_help_text(cli: Cli):
    for verb in VERBS:
        result = cli(*verb.words.split(), "--help")
        assert result.exit_code == 0
        assert re.search(r"Usage:.* " + verb.words, result.stdout), verb.words


def test_every_verb_that_prints_data_prints_json_too():
    page = PAGE.read_text(encoding="utf-8")
    for words, section in re.findall(r"### `flowkit ([^`]+)`\n(.*?)(?=\n### |\Z)", page, re.DOTALL):
        if words not in ("coordinator", "worker", "dev", "export", "web", "webhooks"):
            assert "`--json`" in section, words
