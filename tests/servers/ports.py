"""Free ports of the loopback interface."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 15_000
_RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return different ports that are free at the moment, and reserve them for this process.

    As long as it runs, no call returns them again, in this process or another one of the user. They
    are outside the range of outgoing connections. So while a server is down, no other process gets
    its port, and a client that retries to reach it does not connect to itself.
    """
    return [_free_port() for _ in range(count)]


def _free_port() -> int:
    highest = _lowest_of_clients() - 1
    while True:
        port = random.randint(_LOWEST, highest)
        if _is_reserved_now(port) and _is_free(port):
            return port


def _is_reserved_now(port: int) -> bool:
    """Reserve a port, and return whether no process had reserved it."""
    folder = Path(tempfile.gettempdir()) / f"flowkit-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    file = os.open(folder / str(port), os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    return True  # the file stays open, and so locked, until the process ends


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _lowest_of_clients() -> int:
    try:
        return max(int(_RANGE_OF_CLIENTS.read_text(encoding="ascii").split()[0]), _LOWEST + 1_000)
    except OSError:
        return 32_768


def is_listening(port: int) -> bool:
    """Return whether a process accepts connections on a port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
