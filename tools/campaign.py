"""Simulate many seeds of the standard scenarios, and write a report.

``python tools/campaign.py --seeds 50000 --processes 2`` writes ``docs/reliability/campaign.md``;
``--seed 17`` runs one seed and prints its event log.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from flowkit_testing.simulation import run_seed  # noqa: E402
from tests.simulation.pool import Chunk, run_seeds  # noqa: E402
from tests.simulation.scenarios import STANDARD, of_seed  # noqa: E402

REPORT = ROOT / "docs" / "reliability" / "campaign.md"
TELL_EVERY_SEC = 10.0


def main() -> int:
    options = _options()
    if options.seed is not None:
        return _one(options)
    began = time.monotonic()
    found, told_at = Chunk(), began
    for chunk in run_seeds(
        options.first,
        options.seeds,
        faults=options.faults,
        processes=options.processes,
        limit_sec=options.limit_sec,
    ):
        found.add(chunk)
        for failure in chunk.failures:
            print(failure, flush=True)
        now = time.monotonic()
        if now - told_at > TELL_EVERY_SEC:
            told_at = now
            done = len(found.report.seeds)
            rate = done / (now - began)
            left = (options.seeds - done) / rate
            print(
                f"{done} of {options.seeds} seeds, {rate:.0f}/s, {left / 60:.0f} min left;"
                f" {found.report.faults.total()} faults, {len(found.failures)} failed",
                flush=True,
            )
    print(found.report)
    text = _report(found, options, time.monotonic() - began)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text, encoding="utf-8")
    return 1 if found.failures else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--seed", type=int, help="run this one alone, and print its event log")
    parser.add_argument(
        "--scenario",
        choices=sorted(STANDARD),
        help="with --seed: another scenario than the seed's own",
    )
    parser.add_argument("--faults", default="all", help="fault profile")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--limit-sec", type=float, help="begin no further seeds after this long")
    parser.add_argument("--out", type=Path, default=REPORT, help="where the report goes")
    return parser.parse_args()


def _one(options: argparse.Namespace) -> int:
    standard = STANDARD[options.scenario] if options.scenario else of_seed(options.seed)
    outcome = run_seed(standard.setup(options.faults), options.seed)
    print("\n".join(outcome.log))
    print(f"{standard.name}: {outcome.report}")
    if outcome.error is not None:
        print(outcome.report.failures[options.seed])
    return 0 if outcome.error is None else 1


def _report(found: Chunk, options: argparse.Namespace, took_sec: float) -> str:
    report = found.report
    asked = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [
        "# The last simulation campaign",
        "",
        (
            "`python tools/campaign.py` wrote this page. It runs the [standard"
            " scenarios](../how-to/simulate.md#flowkits-own-scenarios) on the"
        ),
        "[simulated cluster](../how-to/simulate.md), with different faults for each seed.",
        "",
        "| | |",
        "| --- | --- |",
        f"| seeds | {len(report.seeds):,} (from {options.first}) |",
        f"| faults injected | {report.faults.total():,} |",
        f"| seeds with a broken invariant | {len(found.failures)} |",
        f"| virtual time | {report.virtual_hours:,.0f} hours |",
        f"| executions of handlers | {report.executions:,} |",
        f"| commits at which every invariant was checked | {report.commits:,} |",
        f"| duration | {took_sec / 60:.0f} minutes in {options.processes} processes |",
        f"| commit | `{asked.stdout.strip()}` |",
        "",
        "## Faults by kind",
        "",
        "| kind | injected |",
        "| --- | ---: |",
        *(f"| {kind} | {count:,} |" for kind, count in sorted(report.faults.items())),
        "",
        "## Scenarios",
        "",
        "| scenario | seeds | faults | virtual hours | executions | failed |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {name} | {len(one.seeds):,} | {one.faults.total():,} | {one.virtual_hours:,.1f} |"
            f" {one.executions:,} | {len(one.failures)} |"
            for name, one in sorted(found.scenarios.items())
        ),
        "",
    ]
    if found.failures:
        lines += ["## Failures", ""]
        for one in found.failures:
            lines += [
                f"Seed {one.seed}, {one.scenario}:",
                "",
                "```text",
                one.error.replace(f"{ROOT}/", ""),
                "```",
                "",
            ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
