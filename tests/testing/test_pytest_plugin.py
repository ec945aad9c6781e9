"""The fixtures are available without configuration wherever flowkit-testing is installed."""

import pytest

pytest_plugins = ["pytester"]

USES_FIXTURES = """
    async def test_the_store(flowkit_store):
        assert dict(await flowkit_store.load(["t"])) == {}

    async def test_the_bus(flowkit_bus):
        await flowkit_bus.publish([])

    async def test_the_clock(flowkit_clock):
        before = flowkit_clock.now()
        await flowkit_clock.sleep(30 * 86_400)
        assert flowkit_clock.now() == before + 30 * 86_400
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("""
        [pytest]
        addopts = -p no:asyncio
        filterwarnings = error
    """)
    return pytester


def test_fixtures_need_no_configuration(project: pytest.Pytester):
    project.makepyfile(USES_FIXTURES)
    project.runpytest_inprocess().assert_outcomes(passed=3)


def test_another_backend_is_left_out(project: pytest.Pytester):
    project.makeconftest("""
        import pytest

        @pytest.fixture(params=["asyncio", ("elsewhere", {})])
        def anyio_backend(request):
            return request.param
    """)
    project.makepyfile(USES_FIXTURES)
    project.runpytest_inprocess().assert_outcomes(passed=3, deselected=3)


def test_a_fixture_of_the_users_stands_above(project: pytest.Pytester):
    project.makeconftest("""
        import pytest

        @pytest.fixture
        def flowkit_store():
            return "mine"
    """)
    project.makepyfile("""
        def test_the_store(flowkit_store):
            assert flowkit_store == "mine"
    """)
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_cluster_uses_the_other_fixtures(project: pytest.Pytester):
    project.makepyfile("""
        import pytest
        from flowkit_testing import InMemoryStore

        GRAPH = {"nodes": [{"node_id": "a", "type": "work"}]}

        class Mine(InMemoryStore):
            pass

        @pytest.fixture
        async def flowkit_store():
            async with Mine() as store:
                yield store

        async def test_a_cluster(flowkit_cluster, flowkit_bus, flowkit_clock):
            assert isinstance(flowkit_cluster.store, Mine)
            assert flowkit_cluster.bus is flowkit_bus
            assert flowkit_cluster.clock is flowkit_clock
            task_id = await flowkit_cluster.client.create_task(graph=GRAPH)
            assert task_id in await flowkit_cluster.store.load([task_id])

        @pytest.mark.flowkit_sim(seeds=1, faults="none")
        async def test_a_simulation(flowkit_cluster):
            assert not isinstance(flowkit_cluster.store, Mine)
    """)
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_a_suite_runs_with_one_fixture_and_no_configuration(project: pytest.Pytester):
    project.makepyfile("""
        import pytest
        from flowkit_testing import InMemoryStore
        from flowkit_testing.conformance import ArtifactStoreConformance

        class TestMine(ArtifactStoreConformance):
            oversize_bytes = 10_000_000

            @pytest.fixture
            async def artifacts(self, anyio_backend):
                async with InMemoryStore() as store:
                    yield store.artifacts
    """)
    outcome = project.runpytest_inprocess().parseoutcomes()
    assert set(outcome) == {"passed", "skipped"}
    assert outcome["skipped"] == 4


WITH_PYTEST_ASYNCIO = """
    import asyncio

    import pytest
    import pytest_asyncio

    from flowkit.worker import handler
    from flowkit_testing import InMemoryStore
    from flowkit_testing.conformance import ArtifactStoreConformance

    GRAPH = {"nodes": [{"node_id": "a", "type": "wait"}]}
    loops = []

    @handler("wait")
    async def wait(item, ctx):
        await ctx.clock.sleep(60)

    @pytest_asyncio.fixture
    async def worker(flowkit_cluster):
        return await flowkit_cluster.add_worker([wait])

    @pytest.fixture
    async def finished(flowkit_cluster):
        yield await flowkit_cluster.run(GRAPH, handlers=[wait])

    @pytest.mark.asyncio
    async def test_a_cluster(flowkit_cluster):
        assert (await flowkit_cluster.run(GRAPH, handlers=[wait])).status == "finished"

    @pytest.mark.asyncio(loop_scope="module")
    async def test_a_cluster_in_a_fixture(flowkit_cluster, finished, worker):
        assert finished.status == "finished"
        assert (await flowkit_cluster.run(GRAPH)).status == "finished"

    @pytest.mark.asyncio
    @pytest.mark.flowkit_sim(seeds=2, faults="none")
    async def test_a_simulation(flowkit_cluster):
        assert (await flowkit_cluster.run(GRAPH, handlers=[wait])).status == "finished"

    class TestSuite(ArtifactStoreConformance):
        oversize_bytes = 10_000_000

        @pytest.fixture
        async def artifacts(self):
            async with InMemoryStore() as store:
                self.loop = asyncio.get_running_loop()
                yield store.artifacts

        async def test_the_loop_of_the_fixture(self, artifacts):
            assert self.loop is asyncio.get_running_loop()

    @pytest.mark.asyncio(loop_scope="module")
    @pytest.mark.parametrize("number", [1, 2])
    async def test_others_are_left_to_pytest_asyncio(number):
        loops.append(asyncio.get_running_loop())
        assert len(loops) == number and loops[0] is loops[-1]
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_pytest_asyncio_may_be_installed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mode: str
):
    pytester.makeini(f"""
        [pytest]
        asyncio_mode = {mode}
        asyncio_default_fixture_loop_scope = function
        filterwarnings = error
    """)
    pytester.makepyfile(WITH_PYTEST_ASYNCIO)
    # pytest-asyncio takes fixtures before anyio if it is loaded after it.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = ["flowkit_testing.pytest_plugin", "anyio.pytest_plugin", "pytest_asyncio.plugin"]
    options = [option for plugin in plugins for option in ("-p", plugin)]
    outcome = pytester.runpytest_subprocess(*options, timeout=60).parseoutcomes()
    assert set(outcome) == {"passed", "skipped"}
    assert outcome["skipped"] == 4
