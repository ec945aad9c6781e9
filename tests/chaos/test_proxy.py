"""Both ends of a link see each fault of the proxy."""

import socket
import time
from collections.abc import Iterator

import pytest

from tests.chaos.proxy import CLEAR, Behaviour, Link, Proxy

PATIENCE_SEC = 20.0


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_SEC)
        yield server


@pytest.fixture
def link(server: socket.socket) -> Iterator[Link]:
    with Proxy() as proxy:
        yield proxy.link(server.getsockname()[1])


def connected(link: Link) -> socket.socket:
    return socket.create_connection(("127.0.0.1", link.port), timeout=PATIENCE_SEC)


@pytest.fixture
def ends(server: socket.socket, link: Link) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Return the client's and the server's end of a connection."""
    with connected(link) as client:
        behind, _ = server.accept()
        behind.settimeout(PATIENCE_SEC)
        with behind:
            yield client, behind


def test_what_is_sent_arrives_in_both_directions(ends: tuple[socket.socket, socket.socket]) -> None:
    client, behind = ends
    client.sendall(b"to the server")
    assert behind.recv(100) == b"to the server"
    behind.sendall(b"to the client")
    assert client.recv(100) == b"to the client"


def test_an_end_that_closes_is_heard_of_at_the_other(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    client, behind = ends
    client.close()
    assert behind.recv(100) == b""


def test_a_slow_link_delays_and_a_narrow_one_limits_the_rate(
    link: Link, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, behind = ends
    for behaviour in (Behaviour(delay_sec=0.4), Behaviour(bytes_per_sec=50)):
        link.behave(behaviour)
        began = time.monotonic()
        client.sendall(b"0123456789")
        assert behind.recv(100) == b"0123456789"
        assert time.monotonic() - began >= 0.2


def test_a_cut_resets_both_ends_and_refuses_others_until_it_is_repaired(
    link: Link, ends: tuple[socket.socket, socket.socket]
) -> None:
    link.behave(Behaviour(cut=True))
    for end in ends:
        with pytest.raises(ConnectionResetError):
            end.recv(100)
    with pytest.raises(ConnectionResetError), connected(link) as another:
        another.recv(100)
    link.behave(CLEAR)
    with connected(link) as another:
        another.sendall(b"hello")


def test_a_half_open_link_takes_everything_gives_nothing_and_says_nothing(
    server: socket.socket, link: Link, ends: tuple[socket.socket, socket.socket]
) -> None:
    client, behind = ends
    link.behave(Behaviour(swallow=True))
    with connected(link) as another:
        another.sendall(b"is anybody there?")
        client.sendall(b"and here?")
        behind.settimeout(0.3)
        with pytest.raises(TimeoutError):
            behind.recv(100)
        link.behave(CLEAR)
        client.sendall(b"now?")
        with pytest.raises(TimeoutError):
            behind.recv(100)
        client.close()
        with pytest.raises(TimeoutError):
            behind.recv(100)
        another.settimeout(0.3)
        with pytest.raises(TimeoutError):
            another.recv(100)
    with connected(link) as fresh:
        fresh.sendall(b"hello")
        behind, _ = server.accept()
        with behind:
            assert behind.recv(100) == b"hello"


def test_a_connection_to_a_port_without_a_server_is_reset(
    server: socket.socket, link: Link
) -> None:
    server.close()
    with pytest.raises(ConnectionResetError), connected(link) as client:
        client.recv(100)
