"""Hosts in the headers ``Host`` and ``Origin``."""

from collections.abc import Collection
from ipaddress import ip_address


def host_of(header: str) -> str:
    """Return the host of a header ``Host``, without its port, in lower case."""
    if header.startswith("["):
        return header[1:].partition("]")[0].lower()
    return header.partition(":")[0].lower().rstrip(".")


def is_local_name(host: str) -> bool:
    """Return whether a host is an address or ``localhost``: names that no foreign page can have."""
    if host == "localhost":
        return True
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def fault_of_host(header: str | None, allowed: Collection[str]) -> str | None:
    """Return the reason why a ``Host`` is refused, or None.

    A page of another site can give its own name this machine's address, and would then be of the
    same origin.
    """
    host = host_of(header or "")
    if is_local_name(host) or host in allowed:
        return None
    return f"this server is not {host!r}; add the name to options.web.allow_hosts"


def fault_of_origin(origin: str, host: str | None) -> str | None:
    """Return the reason why an ``Origin`` is refused, or None."""
    scheme, _, place = origin.partition("://")
    if scheme.lower() in ("http", "https") and host is not None and place.lower() == host.lower():
        return None
    return "requests of pages of other sites are refused"
