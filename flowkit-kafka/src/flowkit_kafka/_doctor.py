"""Checks of ``flowkit doctor``: the brokers, their version and each topic."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import ApiVersionRequest

from flowkit.errors import FlowKitError
from flowkit.protocols import CheckResult, TopicSpec
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._errors import DRIVER_ERRORS
from flowkit_kafka._messages import OVERHEAD_BYTES
from flowkit_kafka._topics import Topic, Topics, copies_of_a_new_topic, described

# Brokers do not report their release. It follows from the newest version of Fetch (API key 1) that
# they support.
_FETCH = 1
_RELEASES = {18: "4.1", 17: "3.9", 16: "3.7", 15: "3.5", 13: "3.1", 12: "2.7", 11: "2.4"}
_OLDEST = "2.4"
_SIZE = "max.message.bytes"
_CLEANUP = "cleanup.policy"
_TIME = "message.timestamp.type"
_SETTINGS = (_SIZE, _CLEANUP, _TIME)


@dataclass(frozen=True, slots=True)
class _Fault:
    detail: str
    remedy: str


async def check(
    topics: Topics, config: KafkaConfig, servers: Sequence[str], wanted: Sequence[TopicSpec]
) -> list[CheckResult]:
    """Check the brokers and each topic; faults are in the results."""
    return [result async for result in _results(topics, config, servers, wanted)]


async def _results(
    topics: Topics, config: KafkaConfig, servers: Sequence[str], wanted: Sequence[TopicSpec]
) -> AsyncIterator[CheckResult]:
    addresses = ", ".join(servers)
    try:
        async with topics.admin() as admin:
            brokers = len((await admin.describe_cluster())["brokers"])
            found = await described(admin, [spec.name for spec in wanted])
            settings = await _settings(admin, found)
        release = await _release(servers, config)
    except FlowKitError as error:
        remedy = (
            "check that Kafka runs and can be reached from here at the addresses that it"
            " advertises; set `bus` and `options.kafka`"
        )
        yield CheckResult("kafka", False, str(error), remedy)
        return
    yield CheckResult("kafka", True, f"brokers: {brokers}, reached through {addresses}")
    yield _version_result(release)
    copies = copies_of_a_new_topic(config, brokers)
    for spec in wanted:
        topic = found.get(spec.name)
        if topic is None:
            yield _missing_result(spec, config, copies)
        else:
            yield _topic_result(topic, settings.get(spec.name, {}), config, copies)


def _version_result(release: str | None) -> CheckResult:
    if release is None:
        return CheckResult(
            "kafka version", False, f"older than {_OLDEST}", f"use Kafka {_OLDEST} or later"
        )
    return CheckResult("kafka version", True, f"{release} or later")


def _missing_result(spec: TopicSpec, config: KafkaConfig, copies: int) -> CheckResult:
    name = f"topic {spec.name}"
    if config.create_topics:
        return CheckResult(name, True, "does not exist; FlowKit creates it when it is needed")
    partitions = config.broadcast_partitions if spec.broadcast else config.partitions
    remedy = (
        f"kafka-topics.sh --create --topic {spec.name} --partitions {partitions}"
        f" --replication-factor {copies}, or set options.kafka.create_topics"
    )
    return CheckResult(name, False, "does not exist", remedy)


def _topic_result(
    topic: Topic, settings: Mapping[str, str], config: KafkaConfig, copies: int
) -> CheckResult:
    name = f"topic {topic.name}"
    detail = f"partitions: {topic.partitions}, copies: {topic.replication}"
    hint = (
        f"; its messages are shown without a time, which {_TIME}=LogAppendTime adds"
        if settings.get(_TIME) == "CreateTime"
        else ""
    )
    fault = next(_faults(topic, settings, config, copies), None)
    if fault is not None:
        return CheckResult(name, False, f"{detail}; {fault.detail}{hint}", fault.remedy)
    return CheckResult(name, True, detail + hint)


def _faults(
    topic: Topic, settings: Mapping[str, str], config: KafkaConfig, copies: int
) -> Iterator[_Fault]:
    """Yield the faults of a topic, the worst first."""
    alter = f"kafka-configs.sh --alter --entity-type topics --entity-name {topic.name} --add-config"
    needed = config.max_message_bytes + OVERHEAD_BYTES
    if topic.leaderless:
        yield _Fault(
            f"{topic.leaderless} without a leader", "start the brokers that hold its copies"
        )
    if _SIZE in settings and int(settings[_SIZE]) < needed:
        yield _Fault(
            f"accepts {int(settings[_SIZE]):,} bytes, {needed:,} are needed",
            f"{alter} {_SIZE}={needed}, or lower options.kafka.max_message_bytes",
        )
    if "compact" in settings.get(_CLEANUP, ""):
        yield _Fault("compaction deletes unread messages", f"{alter} {_CLEANUP}=delete")
    if topic.replication < copies:
        yield _Fault(
            "too few to lose a broker",
            f"kafka-reassign-partitions.sh, to have {copies} copies; or set"
            f" options.kafka.replication_factor={topic.replication}",
        )


async def _settings(
    admin: AIOKafkaAdminClient, topics: Mapping[str, Topic]
) -> dict[str, dict[str, str]]:
    """Return the settings of each topic that are checked, if this user may read them."""
    if not topics:
        return {}
    wanted = dict.fromkeys(_SETTINGS)
    try:
        answers = await admin.describe_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(wanted))
                for name in topics
            ]
        )
    except DRIVER_ERRORS:
        return {}
    return {
        name: {entry[0]: entry[1] for entry in entries}
        for answer in answers
        for code, _, _, name, entries in answer.resources
        if not code
    }


async def _release(servers: Sequence[str], config: KafkaConfig) -> str | None:
    """Return the oldest release that the brokers can be, or None if it is older than supported."""
    client = AIOKafkaClient(bootstrap_servers=list(servers), **config.connection())
    try:
        await client.bootstrap()
        answer = await client.send(client.get_random_node(), ApiVersionRequest())
    finally:
        await client.close()
    newest = next((highest for key, _, highest in answer.api_versions if key == _FETCH), 0)
    return next((release for version, release in _RELEASES.items() if newest >= version), None)
