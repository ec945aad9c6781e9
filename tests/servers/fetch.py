"""Download the servers before a test run: ``python -m tests.servers.fetch``.

So a download does not count against the time limit of a test. If it fails, this prints the reason.
"""

import sys

from tests.servers.kafka_jars import fetched_jars
from tests.servers.mongod import mongod_program
from tests.servers.processes import Unavailable


def main() -> None:
    for fetch in (fetched_jars, mongod_program):
        try:
            fetch()
        except Unavailable as error:
            sys.stderr.write(f"{error}\n")


if __name__ == "__main__":
    main()
