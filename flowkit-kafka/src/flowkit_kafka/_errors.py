"""Translation of the driver's errors into FlowKit's, by one table."""

from dataclasses import dataclass

from aiokafka import errors as kafka

from flowkit.adapters import redacted
from flowkit.errors import BusError, BusUnavailable, MessageTooLarge, TopicUnavailable


@dataclass(frozen=True, slots=True)
class Translation:
    """FlowKit's error for an error of the driver, with advice for the operator."""

    error: type[BusError] | type[MessageTooLarge]
    advice: str


_FORBIDDEN = Translation(
    BusUnavailable, "the user lacks a right; docs/how-to/deploy.md lists the rights"
)
_FORBIDDEN_TOPIC = Translation(
    TopicUnavailable, "the user lacks a right on a topic; docs/how-to/deploy.md lists the rights"
)
_LOGIN = Translation(
    BusUnavailable, "the login was refused; see options.kafka.sasl_* and security_protocol"
)
_TOO_OLD = Translation(
    BusUnavailable, "the brokers do not speak a version of the protocol that the driver needs"
)
_MISSING = Translation(
    TopicUnavailable, "a topic does not exist; create it, or set options.kafka.create_topics"
)
_LEADERLESS = Translation(
    TopicUnavailable,
    "a topic has partitions without a leader; start the brokers that hold its copies",
)
_BAD_TOPIC = Translation(TopicUnavailable, "the brokers refuse the name of a topic")
_SETTINGS = Translation(BusUnavailable, "the brokers refuse these settings; see options.kafka")
_TOO_LARGE = Translation(
    MessageTooLarge,
    "the broker accepts no message of this size; lower options.kafka.max_message_bytes or raise"
    " the topic's max.message.bytes",
)
_UNCONFIRMED = Translation(BusUnavailable, "the brokers did not confirm")
_SILENT = Translation(BusUnavailable, "the brokers did not answer in time")
_UNREACHABLE = Translation(BusUnavailable, "the brokers cannot be reached")

TABLE: dict[type[BaseException], Translation] = {
    # An error is translated by the most derived of its classes that is listed.
    kafka.MessageSizeTooLargeError: _TOO_LARGE,
    kafka.RecordListTooLargeError: _TOO_LARGE,
    kafka.TopicAuthorizationFailedError: _FORBIDDEN_TOPIC,
    kafka.GroupAuthorizationFailedError: _FORBIDDEN,
    kafka.ClusterAuthorizationFailedError: _FORBIDDEN,
    kafka.TransactionalIdAuthorizationFailed: _FORBIDDEN,
    kafka.DelegationTokenAuthorizationFailed: _FORBIDDEN,
    kafka.SecurityDisabled: _LOGIN,
    kafka.AuthenticationFailedError: _LOGIN,
    kafka.AuthenticationMethodNotSupported: _LOGIN,
    kafka.SaslAuthenticationFailed: _LOGIN,
    kafka.UnsupportedSaslMechanismError: _LOGIN,
    kafka.IllegalSaslStateError: _LOGIN,
    kafka.DelegationTokenExpired: _LOGIN,
    kafka.UnrecognizedBrokerVersion: _TOO_OLD,
    kafka.IncompatibleBrokerVersion: _TOO_OLD,
    kafka.UnsupportedVersionError: _TOO_OLD,
    kafka.UnsupportedForMessageFormatError: _TOO_OLD,
    kafka.UnknownTopicOrPartitionError: _MISSING,
    kafka.LeaderNotAvailableError: _LEADERLESS,
    kafka.InvalidTopicError: _BAD_TOPIC,
    kafka.InvalidSessionTimeoutError: _SETTINGS,
    kafka.InvalidGroupIdError: _SETTINGS,
    kafka.InconsistentGroupProtocolError: _SETTINGS,
    kafka.InvalidPartitionsError: _SETTINGS,
    kafka.InvalidReplicationFactorError: _SETTINGS,
    kafka.InvalidConfigurationError: _SETTINGS,
    kafka.PolicyViolationError: _SETTINGS,
    kafka.UnsupportedCodecError: _SETTINGS,
    kafka.KafkaConfigurationError: _SETTINGS,
    kafka.KafkaError: _UNCONFIRMED,
    # Raised by the driver, but not derived from its root class.
    kafka.ConsumerStoppedError: _UNCONFIRMED,
    kafka.IllegalOperation: _UNCONFIRMED,
    AssertionError: _UNCONFIRMED,
    TimeoutError: _SILENT,
    OSError: _UNREACHABLE,
}
DRIVER_ERRORS = tuple(TABLE)

# These errors come before a message has its sequence number: the idempotent producer stays usable.
HARMLESS_TO_PRODUCER = (
    kafka.MessageSizeTooLargeError,
    kafka.UnknownTopicOrPartitionError,
    kafka.TopicAuthorizationFailedError,
    kafka.InvalidTopicError,
)


def translated(error: BaseException, doing: str) -> BusError | MessageTooLarge:
    """Return FlowKit's error for an error of the driver: the activity, the advice, the detail."""
    found = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), _UNCONFIRMED)
    detail = redacted(str(error)) or type(error).__name__
    return found.error(f"{doing}: {found.advice} ({detail})")
