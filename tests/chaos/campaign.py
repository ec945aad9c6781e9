"""A whole run: start everything, break things under load, let it come to rest, and compare all that
is known.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio

from tests.chaos.checker import check, describe, late_executions
from tests.chaos.clients import CLIENTS
from tests.chaos.cluster import Cluster, Post
from tests.chaos.evidence import Evidence, gather
from tests.chaos.ledger import Line, read_ledgers
from tests.chaos.monkey import Monkey
from tests.chaos.recovery import recovery
from tests.chaos.report import SHOWN, Plan, Report

START_SEC = 90.0
LOOK_SEC = 1.0
TELL_EVERY_SEC = 15.0


def run_campaign(plan: Plan, folder: Path, *, tell: Callable[[str], None]) -> Report:
    """Run it, with everything that is written down in ``folder``. What may not be is in the report,
    not raised.
    """
    report = Report(plan)
    with Cluster(
        folder,
        seed=plan.seed,
        coordinators=plan.coordinators,
        workers=plan.workers,
        nodes_per_sec=plan.nodes_per_sec,
    ) as cluster:
        _until_work_goes_on(cluster)
        tell(f"seed {plan.seed}: work goes on")
        with Monkey(cluster, seed=plan.seed, calm=plan.calm) as monkey:
            _disturb(plan, monkey, report, tell)
            monkey.stop()
        tell(f"{monkey.kills} kills in {report.seconds:.0f} s; now everything is to come to rest")
        report.violations += _come_to_rest(plan, cluster, report)
        report.ends = [
            f"{post.name} (pid {pid}) ended with status {status}"
            for post in cluster.posts
            for _, pid, status in post.ends
        ]
        evidence = anyio.run(_gathered, cluster)
    log = sorted(monkey.log, key=lambda entry: entry["at"])
    _count(report, evidence, monkey)
    report.rows = recovery(evidence, log)
    found = check(evidence)
    report.violations += [describe(violation, evidence, log) for violation in found[:SHOWN]]
    report.violations += [
        f"{one.rule}: {one.submission} {one.node_id}: {one.sentence}" for one in found[SHOWN:]
    ]
    return report


async def _gathered(cluster: Cluster) -> Evidence:
    async with cluster.installation.client() as client:
        return await gather(client, cluster.ledgers)


def _until_work_goes_on(cluster: Cluster) -> None:
    _until_told(
        lambda line: line["what"] == "told" and line["view"]["status"] == "finished",
        cluster,
        cluster.posts,
        "no task ended",
    )


def _until_it_listens(client: Post, cluster: Cluster) -> None:
    """Before that, being told to stop would be the end of a client that was started a moment
    ago.
    """
    _until_told(
        lambda line: line["what"] == "listening" and line["pid"] == client.pid,
        cluster,
        [client],
        "the client did not start",
    )


def _until_told(
    wanted: Callable[[Line], bool], cluster: Cluster, posts: Sequence[Post], failure: str
) -> None:
    """Return when a client has written such a line; meanwhile these posts are looked after."""
    until = time.monotonic() + START_SEC
    while not any(wanted(line) for line in read_ledgers(cluster.ledgers, CLIENTS)):
        for post in posts:
            post.look_after()
        if time.monotonic() > until:
            logs = "\n".join(f"{post.name}: {_tail(post)}" for post in posts)
            raise RuntimeError(f"{failure} within {START_SEC:g} s\n{logs}")
        time.sleep(LOOK_SEC / 4)


def _disturb(plan: Plan, monkey: Monkey, report: Report, tell: Callable[[str], None]) -> None:
    began = told = time.monotonic()
    while (passed := time.monotonic() - began) < plan.seconds or (
        monkey.kills < plan.least_kills and passed < 1.5 * plan.seconds
    ):
        time.sleep(LOOK_SEC)
        monkey.check()
        if time.monotonic() - told >= TELL_EVERY_SEC:
            told = time.monotonic()
            tell(f"{told - began:.0f} s: {monkey.kills} kills")
    report.seconds = time.monotonic() - began


def _come_to_rest(plan: Plan, cluster: Cluster, report: Report) -> list[str]:
    """Submit nothing any more, wait for every end, and stop everything in good order."""
    violations = []
    began = time.monotonic()
    (client,) = cluster.posts_of("client")
    _until_it_listens(client, cluster)
    posts = [*cluster.posts_of("worker"), *cluster.posts_of("coordinator")]
    with ThreadPoolExecutor(len(posts)) as pool:
        ending = pool.submit(client.stop, timeout=plan.quiet_sec)
        while not ending.done():
            for post in posts:
                post.look_after()
            time.sleep(LOOK_SEC / 4)
        if ending.result() != 0:
            violations.append(
                f"not everything had ended {plan.quiet_sec:g} s after the last disaster"
            )
        report.quiet_sec = time.monotonic() - began
        statuses = list(pool.map(Post.stop, posts))
    for post, status in zip(posts, statuses, strict=True):
        if status != 0:
            violations.append(
                f"{post.name} was told to stop in good order, and ended with status"
                f" {status}\n{_tail(post)}"
            )
    return violations


def _tail(post: Post) -> str:
    return "\n".join(post.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def _count(report: Report, evidence: Evidence, monkey: Monkey) -> None:
    report.kills, report.disasters = monkey.kills, monkey.counts()
    for stored in evidence.stored:
        report.tasks[str(stored.view.status)] = report.tasks.get(str(stored.view.status), 0) + 1
        report.nodes += len(stored.view.nodes)
    began = [
        (line["task"], line["node"]) for line in evidence.worker_lines if line["what"] == "began"
    ]
    report.executions = len(began)
    report.repeated = len(began) - len(set(began))
    late = late_executions(evidence)
    report.late, report.latest_sec = len(late), max(late, default=0.0)
    report.batches = sum(line["what"] == "batch" for line in evidence.worker_lines)
    report.unavailable = sum(line["what"] == "unavailable" for line in evidence.client_lines)
