import io
import json
from base64 import b64decode, b64encode

import pytest
from rich.console import Console

from flowkit._records.letter_records import park_letters
from flowkit.cli._output import print_page
from flowkit.task import DeadLetter
from tests.cli.conftest import Cli
from tests.cli.installations import ONE, Installation


@pytest.fixture
def letters(installation: Installation) -> Installation:
    items = [
        DeadLetter(
            "batch-t1-1",
            1.5e9,
            "batch",
            "bad_input",
            "ValueError: no",
            task_id="t1",
            node_id="a",
            uid="7",
            data=b'{"x": 1}',
        ),
        DeadLetter(
            "message-2",
            1.6e9,
            "message",
            "undecodable",
            "not JSON",
            data=b"\xff\x00",
            key="\udcff",
            headers={"odd": b"\xff"},
        ),
    ]
    installation.submit(ONE, task_id="t1")
    installation.do(lambda client: park_letters(client.store, items))
    return installation


def test_dead_letters_are_listed_with_what_went_wrong(cli: Cli, letters: Installation):
    out = cli("dlq", "ls", "--db", letters.address).stdout
    for text in ("batch-t1-1", "batch", "bad_input", "ValueError: no", "message-2", "undecodable"):
        assert text in out
    assert "message-2" not in cli("dlq", "ls", "--task", "t1", "--db", letters.address).stdout


def test_the_list_goes_on_where_a_page_ended(cli: Cli, letters: Installation):
    result = cli("dlq", "ls", "--limit", 1, "--db", letters.address)
    assert "for more, use --after batch-t1-1" in result.stdout
    said = json.loads(
        cli("dlq", "ls", "--after", "batch-t1-1", "--json", "--db", letters.address).stdout
    )
    assert [item["letter_id"] for item in said] == ["message-2"]


@pytest.mark.parametrize(("width", "parts"), [(160, 1), (120, 1), (100, 2)])
def test_an_id_is_on_one_line_unless_it_takes_more_than_half_of_the_width(width: int, parts: int):
    text = io.StringIO()
    letter_id = f"batch-{'t' * 36}-{'0' * 16}"
    out = Console(file=text, width=width)
    print_page(out, ("letter", "error"), [(letter_id, "an error " * 40)], empty="", after=None)
    lines = text.getvalue().splitlines()
    pieces = [line.split("│")[1].strip() for line in lines if line.startswith("│")]
    assert "".join(pieces) == letter_id
    assert len([piece for piece in pieces if piece]) == parts


def test_a_letter_is_shown_with_its_data(cli: Cli, letters: Installation):
    said = json.loads(cli("dlq", "show", "batch-t1-1", "--json", "--db", letters.address).stdout)
    assert (said["uid"], said["data"], said["at"]) == ("7", {"x": 1}, "2017-07-14T02:40:00+00:00")
    assert 'data: {"x": 1}' in cli("dlq", "show", "batch-t1-1", "--db", letters.address).stdout


def test_what_is_no_text_is_shown_all_the_same(cli: Cli, letters: Installation):
    said = json.loads(cli("dlq", "show", "message-2", "--json", "--db", letters.address).stdout)
    assert (said["data_base64"], said["key"], said["headers"]) == (
        "/wA=",
        "\\udcff",
        {"odd": "\\xff"},
    )


ODD_DATA = [
    b"[" * 100_000,
    b"[" * 191 + b"1" + b"]" * 191,
    rb'{"x": "\ud800"}',
    b'{"x": NaN}',
    b'{"x": -Infinity}',
    b'{"x": 1e999}',
    b"1" * 5_000,
    b'"\xff"',
]


def test_data_that_json_writers_refuse_is_shown_as_base64(cli: Cli, installation: Installation):
    items = [
        DeadLetter(f"message-{n}", 0.0, "message", "refused", "no", data=data, topic="\ud800")
        for n, data in enumerate([*ODD_DATA, b"[" * 190 + b"1" + b"]" * 190])
    ]
    installation.do(lambda client: park_letters(client.store, items))
    listed = cli("dlq", "ls", "--json", "--db", installation.address)
    *odd, plain = json.loads(listed.stdout, parse_constant=pytest.fail)
    assert [b64decode(item["data_base64"]) for item in odd] == ODD_DATA
    assert not any("data" in item for item in odd)
    assert json.dumps(plain["data"]) == "[" * 190 + "1" + "]" * 190
    assert plain["topic"] == "\\ud800"
    shown = cli("dlq", "show", "message-2", "--db", installation.address).stdout
    assert f"data_base64: {b64encode(ODD_DATA[2]).decode()}" in shown


def test_letters_are_dropped(cli: Cli, letters: Installation):
    result = cli("dlq", "drop", "batch-t1-1", "nix", "--db", letters.address)
    assert (result.exit_code, result.stdout) == (0, "dropped 1 of 2\n")
    again = cli("dlq", "drop", "batch-t1-1", "--json", "--db", letters.address)
    assert (again.exit_code, json.loads(again.stdout)) == (2, {"dropped": 0})
    missing = cli("dlq", "show", "batch-t1-1", "--db", letters.address)
    assert (missing.exit_code, missing.stderr.splitlines()[-1]) == (
        2,
        "error: dead letter 'batch-t1-1' does not exist",
    )


@pytest.mark.parametrize(("verb", "done"), [("retry", "retried"), ("drop", "dropped")])
def test_a_verb_without_a_letter_to_change_says_so(
    cli: Cli, letters: Installation, verb: str, done: str
):
    result = cli("dlq", verb, "--task", "nosuch", "--db", letters.address)
    assert (result.exit_code, result.stdout) == (2, f"{done} 0 of 0\n")


def test_letters_are_listed_by_kind(cli: Cli, letters: Installation):
    said = json.loads(
        cli("dlq", "ls", "--kind", "message", "--json", "--db", letters.address).stdout
    )
    assert [item["letter_id"] for item in said] == ["message-2"]
    assert cli("dlq", "ls", "--kind", "nix", "--db", letters.address).exit_code == 2


def test_a_message_is_sent_again_and_its_letter_is_gone(cli: Cli, installation: Installation):
    letter = DeadLetter(
        "message-m",
        1.5e9,
        "message",
        "refused",
        "no",
        data=b"{}",
        size=2,
        topic="flowkit.events",
        headers={"h": b"\xff"},
    )
    installation.do(lambda client: park_letters(client.store, [letter]))
    shown = json.loads(
        cli("dlq", "show", "message-m", "--json", "--db", installation.address).stdout
    )
    assert (shown["headers"], shown["topic"]) == ({"h": "\\xff"}, "flowkit.events")
    result = cli("dlq", "retry", "message-m", "--db", installation.address)
    assert (result.exit_code, result.stdout) == (
        0,
        "message-m: sent to flowkit.events again\nretried 1 of 1\n",
    )
    again = cli("dlq", "retry", "message-m", "--json", "--db", installation.address)
    said = [{"letter_id": "message-m", "retried": False, "detail": "there is no such letter"}]
    assert (again.exit_code, json.loads(again.stdout)) == (2, said)


def test_what_cannot_be_tried_again_says_why(cli: Cli, letters: Installation):
    result = cli("dlq", "retry", "--task", "t1", "--db", letters.address)
    assert (result.exit_code, result.stdout) == (
        2,
        (
            "batch-t1-1: not retried: task 't1' is queued: its dead letters can be retried when it"
            " has ended\nretried 0 of 1\n"
        ),
    )


def test_all_letters_of_a_kind_are_dropped(cli: Cli, letters: Installation):
    assert (
        cli("dlq", "drop", "--kind", "message", "--db", letters.address).stdout
        == "dropped 1 of 1\n"
    )
    assert cli("dlq", "drop", "--db", letters.address).exit_code == 2
    assert (
        cli("dlq", "drop", "batch-t1-1", "--kind", "batch", "--db", letters.address).exit_code == 2
    )
    assert "batch-t1-1" in cli("dlq", "ls", "--db", letters.address).stdout


def test_without_letters_it_says_so(cli: Cli, installation: Installation):
    assert cli("dlq", "ls", "--db", installation.address).stdout == "no dead letters\n"
