"""``python -m tests.servers.fetch`` fetches what the servers are made of, before the time of any
test runs.

Where it cannot be had this says why, and the tests say what that means.
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
