"""The page that lists the examples by use case."""

from tests.docs.pages import ROOT, blocks

EXAMPLES = (
    "data_processing",
    "etl",
    "event_driven",
    "invoices",
    "microservices",
    "ml_training",
    "trips",
)


def test_the_page_of_examples_lists_each_and_has_the_commands_of_their_readmes():
    page = ROOT / "docs/how-to/examples.md"
    text = page.read_text(encoding="utf-8")
    commands = [
        line
        for block in blocks(page)
        if block.language == "sh"
        for line in block.code.splitlines()
        if "examples" in line
    ]
    assert sorted(commands) == sorted(first_command(example) for example in EXAMPLES)
    folders = [folder.name for folder in (ROOT / "examples").iterdir() if folder.name[0] != "_"]
    assert [name for name in folders if f"`examples/{name}`" not in text] == []


def first_command(example: str) -> str:
    readme = ROOT / "examples" / example / "README.md"
    return next(block.code.strip() for block in blocks(readme) if block.language == "sh")
