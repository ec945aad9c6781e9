"""From the driver's errors to FlowKit's, by one table."""

from aiokafka import errors as kafka

from flowkit._text.redaction import redacted
from flowkit.errors import BusError, BusUnavailable, MessageTooLarge, TopicUnavailable

Translation = tuple[type[BusError] | type[MessageTooLarge], str]

_FORBIDDEN = (BusUnavailable, "the user lacks a right; docs/how-to/deploy.md lists the rights")
_FORBIDDEN_TOPIC = (
    TopicUnavailable,
    "the user lacks a right on a topic; docs/how-to/deploy.md lists the rights",
)
_LOGIN = (BusUnavailable, "the login was refused; see options.kafka.sasl_* and security_protocol")
_TOO_OLD = (BusUnavailable, "the brokers do not speak a version that the driver needs")
_MISSING = (
    TopicUnavailable,
    "a topic does not exist; create it, or set options.kafka.create_topics",
)
_LEADERLESS = (
    TopicUnavailable,
    "a topic has partitions without a leader; start the brokers that hold its copies",
)
_SETTINGS = (BusUnavailable, "the brokers refuse these settings; see options.kafka")
_TOO_LARGE = (
    MessageTooLarge,
    (
        "the broker takes no message of this size; lower options.kafka.max_message_bytes or raise"
        " the topic's"
    ),
)
_AGAIN = (BusUnavailable, "the brokers did not confirm")

TABLE: dict[type[BaseException], Translation] = {
    # The most derived class that is listed counts; the driver's root comes last.
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
    kafka.InvalidTopicError: (TopicUnavailable, "the brokers refuse the name of a topic"),
    kafka.InvalidSessionTimeoutError: _SETTINGS,
    kafka.InvalidGroupIdError: _SETTINGS,
    kafka.InconsistentGroupProtocolError: _SETTINGS,
    kafka.InvalidPartitionsError: _SETTINGS,
    kafka.InvalidReplicationFactorError: _SETTINGS,
    kafka.InvalidConfigurationError: _SETTINGS,
    kafka.PolicyViolationError: _SETTINGS,
    kafka.UnsupportedCodecError: _SETTINGS,
    kafka.KafkaConfigurationError: _SETTINGS,
    kafka.KafkaError: _AGAIN,
    # Not of the driver's tree, yet raised by it.
    kafka.ConsumerStoppedError: _AGAIN,
    kafka.IllegalOperation: _AGAIN,
    AssertionError: _AGAIN,
    TimeoutError: (BusUnavailable, "the brokers did not answer in time"),
    OSError: (BusUnavailable, "the brokers cannot be reached"),
}
DRIVER_ERRORS = tuple(TABLE)

# What goes wrong before a message got its sequence number leaves the idempotent producer in order.
HARMLESS_TO_PRODUCER = (
    kafka.MessageSizeTooLargeError,
    kafka.UnknownTopicOrPartitionError,
    kafka.TopicAuthorizationFailedError,
    kafka.InvalidTopicError,
)


def translated(error: BaseException, doing: str) -> BusError | MessageTooLarge:
    """FlowKit's error for one of the driver's, saying what was being done and what to do about
    it.
    """
    ours, advice = next((TABLE[kind] for kind in type(error).__mro__ if kind in TABLE), _AGAIN)
    detail = redacted(str(error)) or type(error).__name__
    return ours(f"{doing}: {advice} ({detail})")
