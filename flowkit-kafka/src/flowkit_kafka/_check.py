"""What ``flowkit doctor`` shows of Kafka."""

from collections.abc import AsyncIterator, Mapping, Sequence

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import ApiVersionRequest

from flowkit.errors import FlowKitError
from flowkit.protocols import CheckResult, TopicSpec
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._errors import DRIVER_ERRORS
from flowkit_kafka._producer import OVERHEAD_BYTES
from flowkit_kafka._topics import Topic, Topics, described

# Brokers do not tell their release; the newest form of Fetch (API key 1) that they speak does.
_FETCH = 1
_RELEASES = {18: "4.1", 17: "3.9", 16: "3.7", 15: "3.5", 13: "3.1", 12: "2.7", 11: "2.4"}
_OLDEST = "2.4"
_SIZE = "max.message.bytes"
_CLEANUP = "cleanup.policy"
_TIME = "message.timestamp.type"
_SETTINGS = (_SIZE, _CLEANUP, _TIME)


async def check(
    topics: Topics, config: KafkaConfig, servers: Sequence[str], wanted: Sequence[TopicSpec]
) -> list[CheckResult]:
    """Look at the brokers and at each topic. What is wrong is in the results."""
    return [result async for result in _results(topics, config, servers, wanted)]


async def _results(
    topics: Topics, config: KafkaConfig, servers: Sequence[str], wanted: Sequence[TopicSpec]
) -> AsyncIterator[CheckResult]:
    addresses = ", ".join(servers)
    try:
        async with topics.admin() as admin:
            brokers = len((await admin.describe_cluster())["brokers"])
            there = await described(admin, [spec.name for spec in wanted])
            settings = await _settings(admin, there)
        release = await _release(servers, config)
    except FlowKitError as error:
        remedy = (
            "see that Kafka runs and is reached from here at the addresses it advertises; set `bus`"
            " and `options.kafka`"
        )
        yield CheckResult("kafka", False, str(error), remedy)
        return
    yield CheckResult("kafka", True, f"brokers: {brokers}, reached through {addresses}")
    if release is None:
        yield CheckResult(
            "kafka version", False, f"older than {_OLDEST}", f"use Kafka {_OLDEST} or later"
        )
    else:
        yield CheckResult("kafka version", True, f"{release} or later")
    for spec in wanted:
        yield _topic_result(
            spec, there.get(spec.name), settings.get(spec.name, {}), config, brokers
        )


def _topic_result(
    spec: TopicSpec,
    topic: Topic | None,
    settings: Mapping[str, str],
    config: KafkaConfig,
    brokers: int,
) -> CheckResult:
    name = f"topic {spec.name}"
    copies = config.replication_factor or min(3, brokers)
    if topic is None:
        partitions = config.broadcast_partitions if spec.broadcast else config.partitions
        command = (
            f"kafka-topics.sh --create --topic {spec.name} --partitions {partitions}"
            f" --replication-factor {copies}"
        )
        if config.create_topics:
            return CheckResult(name, True, "does not exist; it is created when it is needed")
        return CheckResult(
            name, False, "does not exist", f"{command}, or set options.kafka.create_topics"
        )
    detail = f"partitions: {topic.partitions}, copies: {topic.replication}"
    needed = config.max_message_bytes + OVERHEAD_BYTES
    alter = f"kafka-configs.sh --alter --entity-type topics --entity-name {spec.name} --add-config"
    if topic.leaderless:
        return CheckResult(
            name,
            False,
            f"{detail}; {topic.leaderless} without a leader",
            "start the brokers that hold its copies",
        )
    if _SIZE in settings and int(settings[_SIZE]) < needed:
        remedy = f"{alter} {_SIZE}={needed}, or lower options.kafka.max_message_bytes"
        return CheckResult(
            name,
            False,
            f"{detail}; takes {int(settings[_SIZE]):,} bytes, {needed:,} are needed",
            remedy,
        )
    if "compact" in settings.get(_CLEANUP, ""):
        return CheckResult(
            name,
            False,
            f"{detail}; compaction deletes messages that were not read",
            f"{alter} {_CLEANUP}=delete",
        )
    if settings.get(_TIME) == "CreateTime":
        detail += (
            "; its messages are shown without a time, which message.timestamp.type=LogAppendTime"
            " adds"
        )
    if topic.replication < copies:
        remedy = (
            f"kafka-reassign-partitions.sh, to have {copies} copies; set"
            f" options.kafka.replication_factor if {topic.replication} is meant"
        )
        return CheckResult(name, False, f"{detail}; too few to lose a broker", remedy)
    return CheckResult(name, True, detail)


async def _settings(
    admin: AIOKafkaAdminClient, there: Mapping[str, Topic]
) -> dict[str, dict[str, str]]:
    """The settings of each topic that matter here, where this user may read them."""
    if not there:
        return {}
    wanted = dict.fromkeys(_SETTINGS)
    try:
        answers = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(wanted)) for name in there]
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
    """The release that the brokers are at least of."""
    client = AIOKafkaClient(bootstrap_servers=list(servers), **config.connection())
    try:
        await client.bootstrap()
        answer = await client.send(client.get_random_node(), ApiVersionRequest())
    finally:
        await client.close()
    newest = next((highest for key, _, highest in answer.api_versions if key == _FETCH), 0)
    return next((release for version, release in _RELEASES.items() if newest >= version), None)
