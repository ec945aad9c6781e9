"""Plugins that others add for a configuration."""

from typing import Any

import pytest

from flowkit import CoordinatorConfig
from flowkit.errors import PluginError
from flowkit.plugins import Plugins
from flowkit_testing import Cluster
from tests.builders import ONE, plugin, work


def adding(added: object) -> object:
    """Return a plugin that adds another one where the namespace is ``shop``."""

    def configure(config: Any) -> Any:
        return added if config.namespace == "shop" else None

    return plugin("adds", flowkit_configure=configure)


SHOP, OTHER = CoordinatorConfig(namespace="shop"), CoordinatorConfig()


def observing(seen: list[Any]) -> object:
    return plugin("observer", flowkit_measured=lambda measures: seen.extend(measures))


def test_a_plugin_adds_another_one_for_the_configurations_that_need_it() -> None:
    plugins = Plugins([adding(observing([]))], discover=False)
    assert plugins.configured(SHOP).measures
    assert not plugins.configured(OTHER).measures
    assert not plugins.measures


def test_plugins_that_are_configured_again_have_what_is_added_once() -> None:
    plugins = Plugins([adding(observing([]))], discover=False)
    assert plugins.configured(OTHER) is plugins
    both = plugins.configured(SHOP)
    for again in (both.configured(SHOP), both.configured(OTHER).configured(SHOP)):
        names = [row.plugin for row in again.provided() if row.name == "flowkit_measured"]
        assert names == ["adds (configured)"]


def test_what_is_added_for_one_configuration_is_not_there_for_another() -> None:
    plugins = Plugins([adding(observing([]))], discover=False)
    assert not plugins.configured(SHOP).configured(OTHER).measures


@pytest.mark.parametrize("added", ["a name", Plugins, plugin("empty")], ids=repr)
def test_what_is_no_plugin_is_refused_with_the_name_of_the_one_that_added_it(added: Any) -> None:
    with pytest.raises(PluginError, match=r"'adds \(configured\)'"):
        Plugins([adding(added)], discover=False).configured(SHOP)


async def test_a_coordinator_and_a_worker_have_what_is_added_for_them() -> None:
    seen: list[Any] = []
    always = plugin("adds", flowkit_configure=lambda config: observing(seen))
    async with Cluster(handlers=[work], plugins=[always]) as cluster:
        await cluster.run(ONE)
    assert {"attempt_sec", "task_changes"} <= {one.name for one in seen}
