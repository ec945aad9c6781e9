"""Addresses of SQLite files: ``sqlite:///relative/path.db``, ``sqlite:////absolute/path.db``."""

from pathlib import Path
from typing import Any, TypeGuard

from flowkit.adapters import redacted
from flowkit.errors import ConfigError

SCHEME = "sqlite://"
_EXAMPLES = "write sqlite:///relative/path.db or sqlite:////absolute/path.db"
_IN_MEMORY = (
    "is not supported, because coordinators and workers share a file; for a bus and a store in"
    " memory use 'memory://' (pip install flowkit-testing)"
)


def is_address(source: Any) -> TypeGuard[str]:
    """Return whether this is an address of the scheme ``sqlite``."""
    return isinstance(source, str) and source.startswith(SCHEME)


def file_of(address: str) -> Path:
    """Return the absolute path of the file at an address.

    Raises:
        ConfigError: the address has no path, names a host, asks for a database in memory or has
            options.
    """
    shown = repr(redacted(address))
    host, slash, path = address.removeprefix(SCHEME).partition("/")
    if ":memory:" in (host, path) or path.startswith("file:"):
        raise ConfigError(f"{shown} {_IN_MEMORY}")
    if host:
        raise ConfigError(f"{shown} names a host, but a file has none; {_EXAMPLES}")
    if not slash or not path.strip("/") or path.endswith("/"):
        raise ConfigError(f"{shown} does not name a file; {_EXAMPLES}")
    if "?" in path or "\0" in path:
        raise ConfigError(f"{shown}: settings belong to 'options.sqlite', not to the address")
    return Path(path).absolute()
