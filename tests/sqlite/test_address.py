"""Addresses of files."""

from pathlib import Path

import pytest

from flowkit.errors import ConfigError
from flowkit_sqlite._address import file_of, is_address


def test_a_path_after_three_slashes_is_relative_to_the_working_directory():
    assert file_of("sqlite:///data/flowkit.db") == Path.cwd() / "data" / "flowkit.db"


def test_a_path_after_four_slashes_is_absolute():
    assert file_of("sqlite:////var/lib/flow kit.db") == Path("/var/lib/flow kit.db")


@pytest.mark.parametrize("address", ["sqlite:///:memory:", "sqlite://:memory:", "sqlite:///file:x"])
def test_a_database_in_memory_is_refused_with_what_to_use_instead(address):
    with pytest.raises(ConfigError, match="memory://"):
        file_of(address)


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "sqlite:////", "sqlite:///data/"])
def test_an_address_without_a_file_is_refused(address):
    with pytest.raises(ConfigError, match="does not name a file; write sqlite:///relative"):
        file_of(address)


def test_an_address_with_a_host_is_refused():
    with pytest.raises(ConfigError, match="names a host"):
        file_of("sqlite://data/flowkit.db")


def test_settings_in_an_address_are_refused():
    with pytest.raises(ConfigError, match=r"options\.sqlite"):
        file_of("sqlite:///flowkit.db?synchronous=normal")


def test_other_sources_are_not_addresses():
    assert not any(map(is_address, ["mongodb://host/name", "sqlite:/x.db", "", None, object()]))
