"""The table that translates the driver's errors."""

import inspect

import pytest
from aiokafka import errors as kafka

from flowkit.errors import BusUnavailable, MessageTooLarge
from flowkit_kafka._errors import DRIVER_ERRORS, TABLE, translated

ABSTRACT = kafka.BrokerResponseError
EVERY_ERROR = [
    each
    for _, each in inspect.getmembers(kafka, inspect.isclass)
    if issubclass(each, Exception) and each is not ABSTRACT
]
WANTS_ADVICE = (
    "Authorization",
    "Authentication",
    "Sasl",
    "TooLarge",
    "UnsupportedVersion",
    "InvalidTopic",
    "InvalidReplicationFactor",
)
# Errors of features that FlowKit does not use.
NOT_OURS = {kafka.RecordTooLargeError, kafka.OffsetMetadataTooLargeError}


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_every_error_of_the_driver_is_caught_and_becomes_one_of_ours(kind):
    assert issubclass(kind, DRIVER_ERRORS)
    ours = translated(kind("the detail"), "publishing")
    assert isinstance(ours, BusUnavailable | MessageTooLarge)
    assert str(ours).startswith("publishing: ")
    assert "the detail" in str(ours)


@pytest.mark.parametrize("kind", EVERY_ERROR, ids=lambda kind: kind.__name__)
def test_an_error_that_an_operator_has_to_fix_has_its_own_entry(kind):
    if any(word in kind.__name__ for word in WANTS_ADVICE) and kind not in NOT_OURS:
        assert kind in TABLE


def test_a_size_the_broker_refuses_is_a_message_too_large():
    assert isinstance(translated(kafka.MessageSizeTooLargeError(), "publishing"), MessageTooLarge)


def test_a_network_error_is_unavailable():
    assert isinstance(translated(ConnectionResetError("gone"), "publishing"), BusUnavailable)
