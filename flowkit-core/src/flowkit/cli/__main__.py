"""Entry point of ``python -m flowkit.cli``."""

from flowkit.cli import run_process

run_process()
