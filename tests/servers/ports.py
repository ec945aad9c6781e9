"""Free ports of the loopback interface."""

import random
import socket
from contextlib import ExitStack
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST = 15_000
_RANGE_OF_CLIENTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Return different ports that are free at the moment.

    They are outside the range of outgoing connections. So while a server is down, no other process
    gets its port, and a client that retries to reach it does not connect to itself.
    """
    with ExitStack() as stack:
        return [_bound(stack.enter_context(socket.socket())) for _ in range(count)]


def _bound(free: socket.socket) -> int:
    highest = _lowest_of_clients() - 1
    while True:
        port = random.randint(_LOWEST, highest)
        try:
            free.bind((LOOPBACK, port))
        except OSError:
            continue
        return port


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
