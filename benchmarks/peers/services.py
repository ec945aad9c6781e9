"""The servers of the systems: on free ports of the loopback interface, in temporary folders.

Each of them confirms a write after it is on the disk, as far as it can be configured so.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import temporal_server
from benchmarks.processes import children
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_jars import KAFKA_VERSION
from tests.servers.mongod import MongoServers, mongod_program
from tests.servers.ports import LOOPBACK, free_ports, is_listening
from tests.servers.processes import ServerProcess, Unavailable

RABBITMQ_FOLDER = Path("/usr/lib/rabbitmq/bin")
POSTGRES_FOLDERS = "/usr/lib/postgresql"
POSTGRES_USER = "postgres"


@dataclass(frozen=True, slots=True)
class Service:
    """A server that runs."""

    address: str
    version: str
    pids: tuple[int, ...] = ()


def program(name: str, *folders: Path) -> Path:
    """Return the path of a program.

    Raises:
        Unavailable: it is not installed.
    """
    path = os.pathsep.join([*map(str, folders), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=path)
    if found is None:
        raise Unavailable(f"{name} is not installed")
    return Path(found)


def output_of(*words: str | Path) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="flowkit-peers-", ignore_cleanup_errors=True) as name:
        folder = Path(name) / "data"
        folder.mkdir()
        yield folder


@contextmanager
def running(server: ServerProcess, port: int) -> Iterator[None]:
    try:
        server.wait_until(lambda: is_listening(port))
        yield
    finally:
        server.stop()


# ---------------------------------------------------------------- servers


@contextmanager
def redis() -> Iterator[Service]:
    """Run a Redis that syncs its append-only file before it answers."""
    path, (port,) = program("redis-server"), free_ports(1)
    version = output_of(path, "--version").partition("v=")[2].split()[0]
    with new_folder() as folder:
        network = ["--port", str(port), "--bind", LOOPBACK]
        durability = ["--save", "", "--appendonly", "yes", "--appendfsync", "always"]
        server = ServerProcess([path, *network, *durability], folder=folder, log=folder / "log")
        with running(server, port):
            yield Service(f"redis://{LOOPBACK}:{port}/0", version)


@contextmanager
def rabbitmq() -> Iterator[Service]:
    """Run a RabbitMQ, and the daemon of Erlang that it needs."""
    path, epmd = program("rabbitmq-server", RABBITMQ_FOLDER), program("epmd")
    names, port, distribution = free_ports(3)
    with new_folder() as folder:
        (folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = {LOOPBACK}:{port}\n", encoding="utf-8"
        )
        (folder / "enabled_plugins").write_text("[].\n", encoding="utf-8")
        environment = {
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": f"benchmark{port}@localhost",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_DIST_PORT": str(distribution),
        }
        daemon = ServerProcess(
            [epmd, "-port", str(names), "-address", LOOPBACK],
            folder=folder,
            log=folder / "epmd.log",
        )
        with running(daemon, names):
            server = ServerProcess(
                [path], folder=folder, log=folder / "log", environment=environment
            )
            with running(server, port):
                version = output_of(program("dpkg-query"), "-Wf${Version}", "rabbitmq-server")
                yield Service(f"amqp://guest:guest@{LOOPBACK}:{port}", version.partition("-")[0])


@contextmanager
def postgres() -> Iterator[Service]:
    """Run a Postgres with its default settings, under another user than root."""
    folders = sorted(Path(POSTGRES_FOLDERS).glob("*/bin"), key=lambda path: int(path.parent.name))
    initdb, path = program("initdb", *folders[-1:]), program("postgres", *folders[-1:])
    (port,) = free_ports(1)
    version = output_of(path, "--version").split()[2]
    with new_folder() as folder:
        user: list[str] = []
        if os.getuid() == 0:
            user = ["setpriv", f"--reuid={POSTGRES_USER}", f"--regid={POSTGRES_USER}"]
            user.append("--clear-groups")
            folder.parent.chmod(0o755)
            shutil.chown(folder, POSTGRES_USER, POSTGRES_USER)
        data = folder / "db"
        output_of(*user, initdb, "-D", data, "-U", POSTGRES_USER, "-A", "trust")
        options = ["-p", str(port), "-h", LOOPBACK, "-k", str(folder)]
        server = ServerProcess(
            [*user, path, "-D", data, *options], folder=folder, log=folder.parent / "log"
        )
        with running(server, port):
            yield Service(f"postgresql://{POSTGRES_USER}@{LOOPBACK}:{port}", version)


@contextmanager
def temporal() -> Iterator[Service]:
    """Run Temporal's server on a Postgres of its own."""
    path, ports = temporal_server.built("server"), free_ports(temporal_server.PORTS)
    with postgres() as database, new_folder() as folder:
        host, _, port = database.address.rpartition("@")[2].partition(":")
        temporal_server.create_databases(host, int(port), POSTGRES_USER)
        config = folder / "temporal.yaml"
        config.write_text(
            temporal_server.config(f"{host}:{port}", POSTGRES_USER, ports), encoding="utf-8"
        )
        server = ServerProcess(
            [path, "--config-file", config, "--allow-no-auth", "start"],
            folder=folder,
            log=folder / "log",
        )
        with running(server, ports[0]):
            yield Service(f"{LOOPBACK}:{ports[0]}", temporal_server.VERSION)


@contextmanager
def kafka() -> Iterator[Service]:
    with KafkaServer.start() as server:
        yield Service(server.address, KAFKA_VERSION)


@contextmanager
def mongo() -> Iterator[Service]:
    with MongoServers() as servers:
        yield Service(servers.address, mongod_program().name.partition("-")[2])


SERVICES: dict[str, Callable[[], AbstractContextManager[Service]]] = {
    "redis": redis,
    "rabbitmq": rabbitmq,
    "postgres": postgres,
    "temporal": temporal,
    "kafka": kafka,
    "mongo": mongo,
}
"""A function for each server, which raises `Unavailable` if it is not installed."""


@contextmanager
def started(name: str) -> Iterator[Service]:
    """Run a server, and say which processes belong to it."""
    before = children(os.getpid())
    with SERVICES[name]() as service:
        pids = children(os.getpid()) - before
        yield Service(service.address, service.version, tuple(sorted(pids)))
