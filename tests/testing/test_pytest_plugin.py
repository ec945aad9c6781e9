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
    pytester.makeini("[pytest]\nfilterwarnings = error\n")
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
