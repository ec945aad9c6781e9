"""The table that translates SQLite's errors."""

import sqlite3
from pathlib import Path

import pytest

from flowkit.errors import (
    BusUnavailable,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)
from flowkit_sqlite._errors import TRANSLATIONS, BusErrors, TranslatedErrors, translate

FILE = Path("/data/flowkit.db")
FIRST_CODE, LAST_CODE = 1, 26
"""SQLite's codes of errors. 0 is success; 27 and above are no errors of a call."""


@pytest.mark.parametrize("code", range(FIRST_CODE, LAST_CODE + 1))
def test_every_result_code_has_an_entry(code):
    assert code in TRANSLATIONS


EVERY_ERROR = [
    each
    for each in vars(sqlite3).values()
    if isinstance(each, type) and issubclass(each, sqlite3.Error)
]


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_of_the_module_becomes_one_of_ours(kind):
    assert isinstance(translate(kind("the detail"), FILE), StoreError)
    assert str(translate(kind("the detail"), FILE)) == "/data/flowkit.db: the detail"


@pytest.fixture
def db(tmp_path):
    db = sqlite3.connect(tmp_path / "x.db")
    db.execute("CREATE TABLE words (word UNIQUE)")
    yield db
    db.close()


def test_an_extended_code_is_translated_like_its_primary_code(db):
    refused = r"^/data/flowkit\.db: UNIQUE .*\(SQLITE_CONSTRAINT_UNIQUE\)"
    with pytest.raises(RecordRefused, match=refused), TranslatedErrors(FILE):
        db.execute("INSERT INTO words VALUES (1), (1)")


def test_a_file_that_may_not_be_written_says_which_right_is_missing(db):
    db.execute("PRAGMA query_only = ON")
    right = "give this user the right to write the file"
    with pytest.raises(StoreUnavailable, match=right), TranslatedErrors(FILE):
        db.execute("INSERT INTO words VALUES (1)")


def test_an_error_knows_its_remedy_also_as_one_of_the_bus(db):
    db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(BusUnavailable) as caught, BusErrors(), TranslatedErrors(FILE):
        db.execute("INSERT INTO words VALUES (zeroblob(100000))")
    error = caught.value
    assert error.fault == "/data/flowkit.db: database or disk is full (SQLITE_FULL)"
    assert str(error) == f"{error.fault}; {error.remedy}"


def test_a_full_disk_says_so(db):
    db.execute("PRAGMA max_page_count = 4")
    with pytest.raises(StoreUnavailable, match="the disk is full"), TranslatedErrors(FILE):
        db.execute("INSERT INTO words VALUES (zeroblob(100000))")


def test_a_disk_that_is_too_full_to_open_a_file_says_so():
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
    error.sqlite_errorname = "SQLITE_IOERR_SHMSIZE"
    assert "the disk is full" in str(translate(error, FILE))


@pytest.mark.parametrize("value", [2**63, "\ud800"])
def test_values_that_sqlite_cannot_store_are_refused(db, value):
    with pytest.raises(RecordRefused), TranslatedErrors(FILE):
        db.execute("SELECT ?", (value,))


def test_a_value_above_the_limit_of_sqlite_is_too_large(db):
    with pytest.raises(RecordTooLarge), TranslatedErrors(FILE):
        db.execute("SELECT zeroblob(2000000000)")


def test_errors_of_other_origin_are_left_alone():
    with pytest.raises(KeyError), TranslatedErrors(FILE):
        raise KeyError("x")
