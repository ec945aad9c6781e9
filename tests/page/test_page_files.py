"""The server answers with the page, which needs nothing from another server."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest

from flowkit_testing import Cluster
from flowkit_web import create_app
from flowkit_web._page_files import ADDRESSES, page_files
from tests.page.built import UI
from tests.web.api import problem, to

ROOT = "http://localhost"
MOST_BYTES = 400_000


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with Cluster() as cluster, to(create_app(cluster.client)) as http:
        yield http


async def test_each_address_of_a_view_answers_with_the_page_without_a_token(
    http: httpx.AsyncClient,
) -> None:
    for address in ADDRESSES:
        place = re.sub(r"{\w+}", "a%2Fb", address)
        answer = await http.get(f"{ROOT}{place}?status=failed&new=1")
        assert answer.status_code == 200, address
        assert '<div id="page"></div>' in answer.text
        assert "no-cache" in answer.headers["cache-control"]


async def test_a_browser_at_an_unknown_address_gets_the_page_and_a_program_a_problem(
    http: httpx.AsyncClient,
) -> None:
    for address in ("/nosuchpage", "/api/v1/nosuchroute"):
        shown = await http.get(f"{ROOT}{address}", headers={"Accept": "text/html,*/*;q=0.8"})
        assert shown.status_code == 404
        assert '<div id="page"></div>' in shown.text
        assert problem(await http.get(f"{ROOT}{address}")) == (404, "not_found")


def test_the_views_of_the_page_are_the_addresses_that_the_server_knows() -> None:
    views = re.findall(r"\['(/[^']*)', lazy", (UI / "src" / "views.tsx").read_text("utf-8"))
    assert [re.sub(r"{\w+}", "*", view) for view in views] == [
        re.sub(r"{\w+}", "*", address) for address in ADDRESSES
    ]


async def test_browsers_keep_the_files_that_the_page_names(http: httpx.AsyncClient) -> None:
    page = (await http.get(f"{ROOT}/")).text
    files = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert {file.rpartition(".")[2] for file in files} == {"css", "js", "svg"}
    for file in files:
        answer = await http.get(f"{ROOT}{file}")
        assert answer.status_code == 200, file
        assert "immutable" in answer.headers["cache-control"]
        plain = await http.get(f"{ROOT}{file}", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
    assert problem(await http.get(f"{ROOT}/assets/other.js")) == (404, "not_found")
    assert problem(await http.get(f"{ROOT}/assets/..%2Findex.html")) == (404, "not_found")


async def test_the_page_may_load_and_send_nothing_elsewhere(http: httpx.AsyncClient) -> None:
    policy = (await http.get(f"{ROOT}/")).headers["content-security-policy"].split("; ")
    assert policy[0] == "default-src 'none'"
    assert {value for _, value in (rule.split(" ") for rule in policy)} == {"'self'", "'none'"}
    for name, file in page_files().items():
        if name.endswith(("html", "css")):
            assert b"//" not in re.sub(rb"/\*.*?\*/", b"", file.data), name


def test_the_page_is_small() -> None:
    assert sum(len(file.compressed) for file in page_files().values()) <= MOST_BYTES


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (UI / "package-lock.json").read_text("utf-8")
