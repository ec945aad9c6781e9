"""Download the servers before a test run, and build the page: ``python -m tests.servers.fetch``.

So a download does not count against the time limit of a test. If it fails, this prints the reason.
"""

import sys

from tests.page.built import built_page
from tests.servers.kafka_jars import fetched_jars
from tests.servers.mongod import mongod_program
from tests.servers.processes import Unavailable


def main() -> None:
    for fetch in (fetched_jars, mongod_program):
        try:
            fetch()
        except Unavailable as error:
            sys.stderr.write(f"{error}\n")
    built_page()


if __name__ == "__main__":
    main()
