"""Sources of configuration, and the errors for invalid ones."""

import json
from pathlib import Path

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith("FLOWKIT_") or name == "KAFKA_BOOTSTRAP_SERVERS":
            monkeypatch.delenv(name)


def test_later_sources_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "flowkit.toml"
    file.write_text('namespace = "from-file"\nlease_ttl_sec = 5\nscheduler_tick_sec = 1\n')
    monkeypatch.setenv("FLOWKIT_NAMESPACE", "from-environment")
    monkeypatch.setenv("FLOWKIT_LEASE_TTL_SEC", "6")
    config = CoordinatorConfig.load(file, overrides={"namespace": "from-overrides"})
    assert (config.namespace, config.lease_ttl_sec, config.scheduler_tick_sec) == (
        "from-overrides",
        6.0,
        1.0,
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.json", json.dumps({"roles": ["a", "b"], "max_concurrency": 3})),
        ("c.toml", 'roles = ["a", "b"]\nmax_concurrency = 3\n'),
        ("c.yaml", "roles: [a, b]\nmax_concurrency: 3\n"),
        ("c.yml", "roles:\n- a\n- b\nmax_concurrency: 3\n"),
    ],
)
def test_three_languages_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = WorkerConfig.load(tmp_path / name)
    assert config.roles == ["a", "b"]
    assert config.max_concurrency == 3


def test_lists_come_from_the_environment_with_commas_or_as_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWKIT_ROLES", "a, b")
    assert WorkerConfig.load().roles == ["a", "b"]
    monkeypatch.setenv("FLOWKIT_ROLES", '["c"]')
    assert WorkerConfig.load().roles == ["c"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"lease": 3}', "lease .*there is no such field"),
        ('{"lease_ttl_sec": "soon"}', "lease_ttl_sec .*number"),
        ('{"lease_ttl_sec": 0}', "lease_ttl_sec .*must be above 0"),
        ('{"namespace": "a b"}', "namespace"),
        ('{"max_in_flight": 0}', "max_in_flight"),
        ('{"limits": {"max_nodes": 0}}', "limits.max_nodes"),
        ('{"limits": {"nodes": 5}}', "limits.nodes.*there is no such field"),
        ('{"worker_types": "a"}', "worker_types"),
        ('{"topic_cmd_fmt": "{colour}"}', "topic_cmd_fmt"),
        ('{"topic_cmd_fmt": "commands"}', "topic_cmd_fmt.*role.* is missing"),
        ('{"bus": "memory://", "kafka_bootstrap": "h:1"}', "bus or kafka_bootstrap, not both"),
        ("[1]", "table of fields"),
        ("{", "c.json"),
    ],
)
def test_a_wrong_configuration_is_an_error_that_names_the_place(
    tmp_path: Path, text: str, named: str
) -> None:
    file = tmp_path / "c.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=named):
        CoordinatorConfig.load(file)


def test_a_wrong_value_in_the_environment_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_MAX_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match=r"max_concurrency \(from environment\)"):
        WorkerConfig.load()


def test_an_unreadable_file_and_an_unknown_language_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        CoordinatorConfig.load(tmp_path / "none.toml")
    (tmp_path / "c.ini").write_text("")
    with pytest.raises(ConfigError, match=r"\.ini"):
        CoordinatorConfig.load(tmp_path / "c.ini")


def test_configurations_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        CoordinatorConfig().namespace = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("fields", "db", "address"),
    [
        ({}, None, "kafka://localhost:9092"),
        ({}, "memory://", "memory://"),
        ({}, "memory://test", "memory://test"),
        ({"db": "memory://here"}, None, "memory://here"),
        ({}, "sqlite:///file.db", "sqlite:///file.db"),
        ({"db": "sqlite:////data/file.db"}, None, "sqlite:////data/file.db"),
        ({}, "mongodb://h/n", "kafka://localhost:9092"),
        ({}, object(), "kafka://localhost:9092"),
        ({"bus": "kafka://h:1,i:2"}, "memory://", "kafka://h:1,i:2"),
        ({"kafka_bootstrap": "h:1"}, "memory://", "kafka://h:1"),
    ],
)
def test_the_bus_is_the_one_configured_else_the_stores_own_else_kafka_here(
    fields: dict[str, str], db: object, address: str
) -> None:
    assert CoordinatorConfig(**fields).bus_address(db) == address  # type: ignore[arg-type]


def test_kafkas_own_variable_counts_like_the_environment_but_below_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "flowkit.json"
    file.write_text('{"kafka_bootstrap": "file:1"}')
    assert CoordinatorConfig.load(file).bus_address() == "kafka://file:1"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "k:9")
    assert CoordinatorConfig.load().bus_address() == "kafka://k:9"
    assert CoordinatorConfig.load(file).bus_address() == "kafka://k:9"
    assert CoordinatorConfig.load(overrides={"bus": "memory://"}).bus_address() == "memory://"
    monkeypatch.setenv("FLOWKIT_KAFKA_BOOTSTRAP", "ours:1")
    assert CoordinatorConfig.load(file).bus_address() == "kafka://ours:1"


def test_a_variable_that_is_no_field_is_an_error_that_names_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWKIT_NAMESPAC", "blue")
    with pytest.raises(
        ConfigError,
        match=r"FLOWKIT_NAMESPAC: there is no such field; did you mean FLOWKIT_NAMESPACE\?",
    ):
        CoordinatorConfig.load()
    monkeypatch.delenv("FLOWKIT_NAMESPAC")
    monkeypatch.setenv("FLOWKIT_COLOUR", "blue")
    for model in (CoordinatorConfig, WorkerConfig):
        with pytest.raises(ConfigError, match="FLOWKIT_COLOUR: there is no such field"):
            model.load()


def test_text_in_the_environment_may_begin_with_a_brace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWKIT_TOPIC_CMD_FMT", "{namespace}.run.{role}")
    assert WorkerConfig.load().command_topic("a") == "flowkit.run.a"


def test_coordinators_and_workers_may_share_one_environment_with_tests(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLOWKIT_MAX_CONCURRENCY", "3")
    monkeypatch.setenv("FLOWKIT_MAX_IN_FLIGHT", "4")
    monkeypatch.setenv("FLOWKIT_TEST_MONGO", "mongodb://127.0.0.1")
    assert CoordinatorConfig.load().max_in_flight == 4
    assert WorkerConfig.load().max_concurrency == 3


@pytest.mark.parametrize("field", ["max_in_flight", "cancel_grace_sec"])
def test_true_is_no_number(field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}.*expected a number, not true"):
        CoordinatorConfig.load(overrides={field: True})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("topic_status_fmt", "s.{type}"),
        ("topic_dlq_fmt", "{namespace}.{role}"),
        ("topic_control_fmt", "{role}"),
        ("topic_cmd_fmt", "{role.x}"),
    ],
)
def test_a_role_stands_in_the_topic_of_commands_only(field: str, text: str) -> None:
    with pytest.raises(ConfigError, match=field):
        CoordinatorConfig.load(overrides={field: text})


def test_names_on_the_bus_are_prefixed_by_the_namespace() -> None:
    config = WorkerConfig(namespace="blue")
    assert config.command_topic("resize") == "blue.cmd.resize"
    assert (config.events_topic, config.control_topic, config.dead_letter_topic) == (
        "blue.events",
        "blue.control",
        "blue.dlq",
    )
    assert WorkerConfig(topic_cmd_fmt="cmd.{type}.v1").command_topic("resize") == "cmd.resize.v1"


def test_segments_that_are_off_need_no_quotes_in_yaml(tmp_path):
    path = tmp_path / "coordinator.yaml"
    path.write_text("segments: off\n")
    assert CoordinatorConfig.load(path).segments == "off"
