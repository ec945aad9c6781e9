"""Run chaos for any time: ``python tools/chaos.py --minutes 60``.

It starts servers and processes, inflicts disasters on them, and checks all promises afterwards.
Ledgers and logs are kept in the folder of ``--keep``, else removed. The exit status is 1 if a
promise was broken.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.chaos.campaign import run_campaign
from tests.chaos.checker import PROMISES
from tests.chaos.report import Plan, Report, page_of, text_of
from tests.servers.processes import Unavailable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument(
        "--calm-minutes",
        type=float,
        default=0,
        help="length of a second run with one disaster at a time, which measures recovery times",
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="seed of disasters and load; random by default"
    )
    parser.add_argument("--least-kills", type=int, default=0)
    parser.add_argument("--coordinators", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--nodes-per-sec", type=float, default=30)
    parser.add_argument(
        "--quiet-sec",
        type=float,
        default=720,
        help="time limit for all tasks to end after the last disaster",
    )
    parser.add_argument("--page", type=Path, help="write the report as a page of the documentation")
    parser.add_argument(
        "--machine",
        default=f"{os.cpu_count()} cores",
        help="description of this machine in the page",
    )
    parser.add_argument("--keep", type=Path, help="new folder for ledgers and logs")
    arguments = parser.parse_args()
    plan = Plan(
        seed=random.randrange(2**32) if arguments.seed is None else arguments.seed,
        seconds=60 * arguments.minutes,
        least_kills=arguments.least_kills,
        coordinators=arguments.coordinators,
        workers=arguments.workers,
        nodes_per_sec=arguments.nodes_per_sec,
        quiet_sec=arguments.quiet_sec,
    )
    calm_plan = replace(plan, seconds=60 * arguments.calm_minutes, least_kills=0, calm=True)
    folder = (
        Path(tempfile.mkdtemp(prefix="flowkit-chaos-"))
        if arguments.keep is None
        else arguments.keep
    )
    folder.mkdir(parents=True, exist_ok=arguments.keep is None)
    # Exit through the context managers, which end all servers and processes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    try:
        reports = [
            run(one, folder / name)
            for name, one in (("all-at-once", plan), ("calm", calm_plan))
            if one.seconds
        ]
    except Unavailable as error:
        sys.exit(f"cannot start the servers: {error}")
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    if arguments.page is not None:
        shown = (
            f"--minutes {arguments.minutes:g} --calm-minutes {arguments.calm_minutes:g} --seed"
            f" {plan.seed}"
        )
        before = arguments.page.read_text(encoding="utf-8") if arguments.page.exists() else ""
        page = page_of(
            reports[0],
            reports[1] if len(reports) > 1 else None,
            before=before,
            arguments=shown,
            machine=arguments.machine,
            rules=PROMISES,
        )
        arguments.page.write_text(page, encoding="utf-8")
    sys.exit(1 if any(report.violations for report in reports) else 0)


def run(plan: Plan, folder: Path) -> Report:
    report = run_campaign(
        plan, folder, progress=lambda text: print(time.strftime("%H:%M:%S"), text, flush=True)
    )
    print(text_of(report), flush=True)
    return report


if __name__ == "__main__":
    main()
