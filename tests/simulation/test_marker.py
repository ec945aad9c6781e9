"""The marker, its options and its fixtures in a project of a user."""

import pytest

pytest_plugins = ["pytester"]

FLOW = """
    import pytest
    from flowkit.worker import handler

    GRAPH = {"nodes": [{"node_id": "a", "type": "work", "retry_policy": {"max": 20}}]}
    bodies = []

    @handler("work")
    async def work(item, ctx):
        await ctx.clock.sleep(1)
"""


@pytest.fixture(params=["", "anyio_mode = auto\n"], ids=["plain", "auto"])
def project(request: pytest.FixtureRequest, pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini(
        "[pytest]\nfilterwarnings = error\naddopts = --strict-markers -p no:asyncio\n"
        f"{request.param}"
    )
    return pytester


def test_a_marked_test_runs_once_for_each_seed(project: pytest.Pytester) -> None:
    project.makepyfile(
        FLOW
        + """
    @pytest.mark.flowkit_sim(seeds=7, faults="none")
    async def test_it(flowkit_cluster, tmp_path):
        bodies.append(flowkit_cluster.seed)
        view = await flowkit_cluster.run(GRAPH, handlers=[work])
        assert view.status == "finished"
        assert tmp_path.exists()

    def test_how_often():
        assert bodies == list(range(7))
    """
    )
    project.runpytest_inprocess().assert_outcomes(passed=2)


def test_the_options_stand_above_the_marker(project: pytest.Pytester) -> None:
    project.makepyfile(
        FLOW
        + """
    @pytest.mark.flowkit_sim(seeds=7, faults="none", handlers=[work])
    async def test_it(flowkit_cluster):
        bodies.append(flowkit_cluster.seed)

    def test_how_often():
        assert bodies == [5] or len(bodies) == 3
    """
    )
    project.runpytest_inprocess("--flowkit-sim-seed=5").assert_outcomes(passed=2)
    project.runpytest_inprocess("--flowkit-sim-seeds=3").assert_outcomes(passed=2)


def test_a_failing_seed_prints_the_line_that_replays_it(project: pytest.Pytester) -> None:
    project.makepyfile(
        test_flow=FLOW
        + """
    @pytest.mark.flowkit_sim(seeds=7, faults="none")
    async def test_it(flowkit_cluster):
        await flowkit_cluster.run(GRAPH, handlers=[work])
        assert flowkit_cluster.seed != 4
    """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "*seed 4: AssertionError*",
            "*replay: pytest 'test_flow.py::test_it*' --flowkit-sim-seed=4",
            "*executes a of*",
        ]
    )
    project.runpytest_inprocess("--flowkit-sim-seed=4").assert_outcomes(failed=1)
    project.runpytest_inprocess("--flowkit-sim-seed=3").assert_outcomes(passed=1)


def test_a_profile_is_a_fixture(project: pytest.Pytester) -> None:
    project.makepyfile(
        FLOW
        + """
    @pytest.mark.flowkit_sim(seeds=3)
    async def test_it(flowkit_cluster, flowkit_faults_clocks):
        await flowkit_cluster.run(GRAPH, handlers=[work])
        assert flowkit_cluster.faults == flowkit_faults_clocks
        assert set(flowkit_cluster.injected) <= {"skew", "clock_jump"}
    """
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_marker_that_cannot_work_is_an_error(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
    import pytest

    @pytest.mark.flowkit_sim
    def test_it(flowkit_cluster):
        pass
    """
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            (
                "*@pytest.mark.flowkit_sim takes keyword arguments, and needs an async test with"
                " flowkit_cluster*"
            )
        ]
    )


def test_the_ordinary_cluster_is_what_it_was(project: pytest.Pytester) -> None:
    project.makepyfile(
        FLOW
        + """
    pytestmark = pytest.mark.anyio

    async def test_it(flowkit_cluster):
        view = await flowkit_cluster.run(GRAPH, handlers=[work])
        assert view.status == "finished"
        assert type(flowkit_cluster).__name__ == "Cluster"
    """
    )
    project.makeconftest(
        "import pytest\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize("seeds", ["0", "-5", "x"])
def test_an_option_without_any_seed_is_refused(
    pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str], seeds: str
) -> None:
    assert pytester.runpytest_inprocess(f"--flowkit-sim-seeds={seeds}").ret == 4
    expected = f"--flowkit-sim-seeds: a whole number of at least 1, not '{seeds}'"
    assert expected in capsys.readouterr().err


def test_a_marker_without_any_seed_fails(project: pytest.Pytester) -> None:
    project.makepyfile("""
        import pytest

        @pytest.mark.flowkit_sim(seeds=0)
        async def test_it(flowkit_cluster):
            pass
    """)
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*ValueError: seeds is a whole number of at least 1, not 0"])
