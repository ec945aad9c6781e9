"""Fixtures of all tests."""

from tests.servers.kafka_fixtures import kafka_address, own_kafka
from tests.servers.mongo_fixtures import mongo_address, mongo_set_of_three, mongo_standalone, own_mongo

__all__ = ["kafka_address", "mongo_address", "mongo_set_of_three", "mongo_standalone", "own_kafka", "own_mongo"]
