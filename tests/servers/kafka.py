"""A real Apache Kafka in KRaft mode: one broker, or several that replicate."""

import base64
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.servers.kafka_jars import fetched_jars, java_command
from tests.servers.ports import LOOPBACK, free_ports, is_listening
from tests.servers.processes import ServerProcess, data_folder

_HEAP = (
    "-Xms96m",
    "-Xmx768m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
)
_LOG_CONFIG = """\
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c)%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
"""
_ONE_BROKER = {
    "offsets.topic.replication.factor": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
}
_SEVERAL_BROKERS = {
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
    "offsets.topic.replication.factor": 3,
    "transaction.state.log.replication.factor": 3,
    "transaction.state.log.min.isr": 2,
    "controller.quorum.election.timeout.ms": 500,
    "controller.quorum.fetch.timeout.ms": 1000,
}

_CLUSTER_ID = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
_FORMATTED: dict[int, dict[str, bytes]] = {}
"""The files of a new storage, by the number of its broker."""


class Broker:
    """One node that is both broker and controller."""

    def __init__(self, number: int, port: int, folder: Path, settings: Sequence[str]) -> None:
        self.port = port
        self._number = number
        self._folder = folder
        self._log = folder / "server.log"
        self._process: ServerProcess | None = None
        (folder / "server.properties").write_text(
            "\n".join([f"node.id={number}", *settings]) + "\n", encoding="utf-8"
        )
        (folder / "log4j2.properties").write_text(_LOG_CONFIG, encoding="utf-8")
        java, jars = java_command(), fetched_jars()
        self._jvm = [
            java,
            *_HEAP,
            "-Dlog4j2.configurationFile=log4j2.properties",
            "-cp",
            f"{jars}{os.sep}*",
        ]

    def format(self) -> None:
        """Make the storage of a new broker.

        Kafka's tool does it once for each number, in a Java of its own. Later ones get a copy.
        """
        data = self._folder / "data"
        if self._number not in _FORMATTED:
            self._format_by_tool()
            _FORMATTED[self._number] = {file.name: file.read_bytes() for file in data.iterdir()}
            return
        data.mkdir()
        for name, content in _FORMATTED[self._number].items():
            (data / name).write_bytes(content)

    def _format_by_tool(self) -> None:
        command = [
            *self._jvm,
            "kafka.tools.StorageTool",
            "format",
            f"--cluster-id={_CLUSTER_ID}",
            "-c",
            "server.properties",
        ]
        done = subprocess.run(
            command, cwd=self._folder, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(
                f"Kafka's storage could not be formatted:\n{done.stdout}{done.stderr}"
            )

    def wipe(self) -> None:
        """Remove all data of a stopped broker."""
        shutil.rmtree(self._folder / "data")

    def launch(self) -> None:
        self._process = ServerProcess(
            [*self._jvm, "kafka.Kafka", "server.properties"], folder=self._folder, log=self._log
        )

    def wait(self) -> None:
        self.process.wait_until(lambda: is_listening(self.port))

    @property
    def process(self) -> ServerProcess:
        if self._process is None:
            raise RuntimeError("the broker is not started")
        return self._process


class KafkaServer:
    """Brokers in temporary folders on free ports.

    Create it with :meth:`start`, and use it as a context manager or call :meth:`stop`.
    """

    def __init__(self, folder: Path, *, brokers: int, settings: dict[str, object]) -> None:
        self._folder = folder
        ports = free_ports(2 * brokers)
        voters = ",".join(
            f"{number}@{LOOPBACK}:{port}" for number, port in enumerate(ports[brokers:], 1)
        )
        self._brokers: list[Broker] = []
        for number in range(1, brokers + 1):
            home = folder / f"broker-{number}"
            home.mkdir()
            port, controller = ports[number - 1], ports[brokers + number - 1]
            lines = _properties(
                port,
                controller,
                voters,
                home,
                (_SEVERAL_BROKERS if brokers > 1 else _ONE_BROKER) | settings,
            )
            self._brokers.append(Broker(number, port, home, lines))

    @classmethod
    def start(cls, *, brokers: int = 1, **settings: object) -> Self:
        """Start brokers and return when all accept connections.

        ``settings`` are further broker settings, with ``_`` for ``.``.

        Raises:
            Unavailable: there is no Java, or the jars cannot be fetched.
        """
        folder = data_folder("flowkit-kafka-")
        try:
            server = cls(
                folder,
                brokers=brokers,
                settings={name.replace("_", "."): value for name, value in settings.items()},
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        try:
            server._format()
            for broker in server._brokers:
                broker.launch()
            for broker in server._brokers:
                broker.wait()
        except BaseException:
            server.stop()
            raise
        return server

    def _format(self) -> None:
        for broker in self._brokers:
            broker.format()

    @property
    def address(self) -> str:
        """Bootstrap servers: host and port of each broker, separated by commas."""
        return ",".join(f"{LOOPBACK}:{broker.port}" for broker in self._brokers)

    def kill(self, number: int = 1) -> None:
        """Kill a broker (``kill -9``); the first has the number 1."""
        self._brokers[number - 1].process.kill()

    def start_again(self, number: int = 1) -> None:
        """Start a killed or stopped broker again in its folder and on its port."""
        self._brokers[number - 1].launch()
        self._brokers[number - 1].wait()

    def restart(self, number: int = 1, *, down_sec: float = 0) -> None:
        """Shut a broker down and start it again ``down_sec`` seconds later."""
        self._brokers[number - 1].process.stop()
        time.sleep(down_sec)
        self.start_again(number)

    def wipe(self) -> None:
        """Kill all brokers and start them on their ports with empty disks."""
        for broker in self._brokers:
            broker.process.kill()
            broker.wipe()
        self._format()
        for broker in self._brokers:
            broker.launch()
        for broker in self._brokers:
            broker.wait()

    def suspend(self, number: int = 1) -> None:
        """Suspend a broker: its connections stay open, but it does not answer."""
        self._brokers[number - 1].process.suspend()

    def resume(self, number: int = 1) -> None:
        self._brokers[number - 1].process.resume()

    def stop(self) -> None:
        """Stop all brokers and remove their folders."""
        for broker in self._brokers:
            if broker._process is not None:
                broker.process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _properties(
    port: int, controller: int, voters: str, home: Path, settings: dict[str, object]
) -> list[str]:
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": voters,
        "log.dirs": home / "data",
        "num.partitions": 8,
        "auto.create.topics.enable": "false",
        "offsets.topic.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        "log.segment.bytes": 16 * 1024 * 1024,
        "log.index.size.max.bytes": 256 * 1024,
        # By default this is 128 MB of the heap, which a broker with the topics of a whole test run
        # has a better use for.
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        # A killed broker is to be noticed, and to be let in again, in seconds.
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 500,
    }
    return [f"{name}={value}" for name, value in (values | settings).items()]
