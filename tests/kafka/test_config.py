"""Settings, addresses and the plugin."""

from pathlib import Path

import pytest

from flowkit import CoordinatorConfig
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit_kafka import KafkaBus, KafkaConfig
from flowkit_kafka._address import bootstrap_servers

WRONG = [
    (
        {"partition": 3},
        "options.kafka.partition: there is no such field; did you mean 'partitions'",
    ),
    ({"partitions": 0}, "options.kafka.partitions"),
    ({"compression": "rar"}, "options.kafka.compression"),
    ({"request_timeout_sec": 10}, "request_timeout_sec must be above rebalance_timeout_sec"),
    ({"heartbeat_interval_sec": 5}, "heartbeat_interval_sec must be at most a third"),
    ({"security_protocol": "SASL_SSL", "sasl_username": "me"}, "PLAIN needs sasl_password"),
    (
        {"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"},
        "OAUTHBEARER needs sasl_oauth_token_provider",
    ),
    ({"security_protocol": "SSL", "ssl_cafile": "/nowhere/ca.pem"}, "ssl_cafile"),
    (
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_provider": "nowhere:token",
        },
        "sasl_oauth_token_provider: 'nowhere:token'",
    ),
]


@pytest.mark.parametrize(
    ("options", "complaint"), WRONG, ids=[str(options) for options, _ in WRONG]
)
def test_a_wrong_setting_is_named(options, complaint):
    with pytest.raises(ConfigError) as caught:
        KafkaBus("kafka://localhost", CoordinatorConfig(options={"kafka": options}))
    assert complaint in str(caught.value)


def test_a_password_is_not_shown():
    config = KafkaConfig.parse(
        {"security_protocol": "SASL_PLAINTEXT", "sasl_username": "me", "sasl_password": "hush"}
    )
    assert "hush" not in repr(config)
    assert config.connection()["sasl_plain_password"] == "hush"
    with pytest.raises(ConfigError) as caught:
        KafkaConfig.parse({"sasl_password": "hush", "sasl_username": 5})
    assert "hush" not in str(caught.value)


def test_tls_settings_reach_the_driver():
    context = KafkaConfig.parse(
        {"security_protocol": "SSL", "ssl_check_hostname": False}
    ).connection()["ssl_context"]
    assert context.check_hostname is False
    assert "ssl_context" not in KafkaConfig.parse({}).connection()


def test_hosts_are_read_from_the_address():
    assert bootstrap_servers("kafka://a:1, b ,[::1]:3,[::2]") == [
        "a:1",
        "b:9092",
        "[::1]:3",
        "[::2]:9092",
    ]


@pytest.mark.parametrize(
    "address",
    [
        "kafka://",
        "kafka://a,,b",
        "kafka://a:x",
        "kafka://a:0",
        "kafka://a/b",
        "kafka://a:1?x=1",
        "kafka://me:hush@a",
    ],
)
def test_a_wrong_address_is_refused(address):
    with pytest.raises(ConfigError) as caught:
        KafkaBus(address)
    assert "bus: " in str(caught.value)
    if "@" in address:
        assert "hush" not in str(caught.value)


def test_the_plugin_opens_kafka_addresses_and_no_others():
    plugins = Plugins()
    assert isinstance(plugins.open_bus("kafka://localhost:9092", CoordinatorConfig()), KafkaBus)
    assert not isinstance(plugins.open_bus("memory://", CoordinatorConfig()), KafkaBus)


def test_the_readme_tells_every_setting():
    readme = (
        Path(__file__).resolve().parent.parent.parent / "flowkit-kafka" / "README.md"
    ).read_text(encoding="utf-8")
    for name, field in KafkaConfig.model_fields.items():
        assert (
            f"| `{name}` | `{field.get_default(call_default_factory=True)}` | {field.description} |"
            in readme
        )


def test_a_bus_whose_publish_topics_are_topics_of_flowkit_is_refused() -> None:
    options = {"kafka": {"publish_topics": ["orders", "flowkit.cmd.any-role"]}}
    with pytest.raises(ConfigError, match=r"publish_topics: 'flowkit.cmd.any-role' is a topic of"):
        KafkaBus("kafka://localhost:1", CommonConfig(options=options))
    KafkaBus("kafka://localhost:1", CommonConfig(namespace="n", options=options))
