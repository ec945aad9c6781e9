"""Names of topics: one for each role, no two alike, and none too long."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit import CoordinatorConfig, GraphError, WorkerConfig
from flowkit._runtime.topic_names import role_in_topic
from flowkit.errors import ConfigError
from flowkit.worker import Worker, handler
from flowkit_testing import Cluster

LEGAL = re.compile(r"[A-Za-z0-9._-]+")


@pytest.mark.parametrize("role", ["resize", "shop.resize", "send_mail", "a-b", "X", "x-", "..."])
def test_a_plain_role_stays_as_it_is_in_its_topic(role: str) -> None:
    assert CoordinatorConfig().command_topic(role) == f"flowkit.cmd.{role}"


@pytest.mark.parametrize(
    ("role", "name"),
    [
        ("send mail", "x--send_20mail"),
        ("größe", "x--gr_c3_b6_c3_9fe"),
        ("a/b", "x--a_2fb"),
        ("a_b c.d", "x--a_5fb_20c_2ed"),
        ("x--send_20mail", "x--x--send_5f20mail"),
        ("..", "x--_2e_2e"),
    ],
)
def test_any_other_role_is_encoded_in_its_topic(role: str, name: str) -> None:
    assert CoordinatorConfig().command_topic(role) == f"flowkit.cmd.{name}"


@given(st.sets(st.text("ab_.-x2f /ö", min_size=1, max_size=8), min_size=2))
def test_two_roles_never_share_a_topic_and_every_topic_is_legal(roles: set[str]) -> None:
    names = [role_in_topic(role) for role in roles]
    assert len(set(names)) == len(roles)
    assert all(LEGAL.fullmatch(name) for name in names)


@given(st.sets(st.text("a_. ö", min_size=1, max_size=6), min_size=2))
def test_encoded_roles_do_not_collide_in_kafkas_metrics(roles: set[str]) -> None:
    encoded = [name for name in map(role_in_topic, roles) if name.startswith("x--")]
    assert len({name.replace(".", "_") for name in encoded}) == len(encoded)


@pytest.mark.parametrize(
    "fields",
    [
        {"topic_cmd_fmt": "my topic {role}"},
        {"topic_status_fmt": "a/b"},
        {"topic_dlq_fmt": ".."},
        {"topic_control_fmt": "c" * 250},
    ],
)
def test_a_format_that_makes_no_topic_name_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(fields))):
        CoordinatorConfig.load(overrides=fields)


def test_a_worker_whose_role_makes_too_long_a_topic_is_refused() -> None:
    @handler("ö" * 100)
    async def work(item: Any) -> None: ...

    with pytest.raises(
        ConfigError, match=r"its topic 'flowkit\.cmd\.x--.*has 615 characters; the limit is 249"
    ):
        Worker(cfg=WorkerConfig(db="memory://"), handlers=[work])


async def test_a_submission_whose_role_makes_too_long_a_topic_is_refused() -> None:
    nodes = [
        {"node_id": name, "type": role}
        for name, role in (("a", "ö" * 100), ("b", "send mail"), ("c", "ß" * 100))
    ]
    async with Cluster() as cluster:
        with pytest.raises(GraphError) as refused:
            await cluster.client.create_task(graph={"nodes": nodes})
    assert [fault.node_id for fault in refused.value.faults] == ["a", "c"]
    assert "the limit is 249" in refused.value.faults[0].message
