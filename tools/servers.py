"""Run a real Kafka and a real MongoDB until Ctrl-C: ``python tools/servers.py up``.

The servers are downloaded once and kept in ``~/.cache/flowkit``. Their data is deleted when they
stop.
"""

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers
from tests.servers.processes import Unavailable


def up() -> None:
    """Start both servers, print their addresses, and wait for Ctrl-C."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    print("starting Kafka and MongoDB ...", flush=True)
    with ExitStack() as stack:
        starts: list[Callable[[], Any]] = [KafkaServer.start, MongoServers]
        with ThreadPoolExecutor() as pool:
            started = [
                pool.submit(lambda start: stack.enter_context(start()), start) for start in starts
            ]
        kafka, mongo = (each.result() for each in started)
        print(
            f"Kafka:   {kafka.address}\n"
            f"MongoDB: {mongo.address}\n\n"
            f"export FLOWKIT_BUS='kafka://{kafka.address}'\n"
            f"export FLOWKIT_DB='{with_database(mongo.address)}'\n"
            f"export FLOWKIT_TEST_KAFKA='{kafka.address}'\n"
            f"export FLOWKIT_TEST_MONGO='{mongo.address}'\n\n"
            "Ctrl-C stops both.",
            flush=True,
        )
        stopped.wait()
        print("stopping ...", flush=True)


def with_database(address: str) -> str:
    """Return a server's address with the database ``flowkit``."""
    return address.replace("/?", "/flowkit?")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("verb", choices=["up"], help="start both servers")
    parser.parse_args()
    try:
        up()
    except Unavailable as error:
        sys.exit(f"cannot start the servers: {error}")


if __name__ == "__main__":
    main()
