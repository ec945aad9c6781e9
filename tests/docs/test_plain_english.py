"""The language check finds the lines that it names, and nothing else."""

import pytest
from tools.plain_english import OPENINGS, WORDS, findings

FIRST_WORD = next(iter(WORDS))


@pytest.mark.parametrize("opening", OPENINGS)
def test_a_docstring_that_opens_with_a_question_word_is_found_with_its_line(opening: str) -> None:
    text = f'LIMIT = 3\n"""{opening} it is."""\n\n\ndef run():\n    """\n    {opening} runs."""\n'
    reason = f"a docstring opens with {opening!r}"
    found = [finding for finding in findings({"a.py": text}) if reason in finding]
    assert [finding.split(": ")[0] for finding in found] == ["a.py:2", "a.py:7"]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "line",
    ["# Wait for {}.", "print('wait for {}')", "print(f'{{1}} wait for {}')", 'x = """\n{}"""'],
)
def test_a_banned_word_is_found_in_comments_and_strings(word: str, line: str) -> None:
    text = "x = 1\n" + line.format(word.capitalize()) + "\n"
    (finding,) = findings({"a.py": text})
    assert finding.startswith(f"a.py:{2 + line.count(chr(10))}: {word!r}")


def test_a_banned_word_is_found_in_a_file_with_docstrings() -> None:
    text = f'def run():\n    """Run."""\n    return 1  # {FIRST_WORD}\n'
    (finding,) = findings({"a.py": text})
    assert finding.startswith(f"a.py:3: {FIRST_WORD!r}")


def test_a_banned_word_is_found_on_a_page_also_across_two_lines() -> None:
    phrase = next(word for word in WORDS if " " in word)
    text = "# Title\n\nA " + phrase.replace(" ", "\n", 1) + ".\n"
    assert [finding.split(" (")[0] for finding in findings({"a.md": text})] == [
        f"a.md:3: {phrase!r}"
    ]


def test_a_banned_word_is_found_in_the_name_of_a_test() -> None:
    text = f"class TestIt:\n    async def test_{FIRST_WORD}_waits(self):\n        pass\n"
    (finding,) = findings({"a.py": text})
    assert finding.startswith(f"a.py:2: {FIRST_WORD!r}")


def test_other_names_and_parts_of_words_are_not_found() -> None:
    text = f'{FIRST_WORD}_names = 1\n"""However, a whole soldier recommends it."""\n'
    assert list(findings({"a.py": text})) == []


@pytest.mark.parametrize("mark", ["skip", "off"])
def test_a_line_that_the_formatter_skips_is_found(mark: str) -> None:
    (finding,) = findings({"a.py": f"x = 1\ny = [1,2]  # fmt: {mark}\n"})
    assert finding.startswith("a.py:2: the formatter skips this line")


def test_an_exception_accepts_its_line_in_its_file_alone() -> None:
    line = f"# {FIRST_WORD}"
    text = f"x = 1\n  {line}\n"
    found = list(findings({"a.py": text, "b.py": text}, {("a.py", line)}))
    assert [finding.split(": ")[0] for finding in found] == ["b.py:2"]


def test_an_exception_that_is_not_needed_is_found() -> None:
    assert list(findings({"a.py": "x = 1\n"}, {("a.py", "# gone")})) == [
        "a.py: this exception is not needed: # gone"
    ]
