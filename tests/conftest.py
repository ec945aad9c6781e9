"""Fixtures of all tests."""

import cel  # noqa: F401 - can be loaded once in a process only, and pytest run within pytest forgets what it has loaded

from tests.servers.kafka_fixtures import kafka_address, own_kafka
from tests.servers.mongo_fixtures import mongo_address, mongo_set_of_three, mongo_standalone, own_mongo

__all__ = ["kafka_address", "mongo_address", "mongo_set_of_three", "mongo_standalone", "own_kafka", "own_mongo"]
