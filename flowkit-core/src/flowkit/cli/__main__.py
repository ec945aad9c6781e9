"""``python -m flowkit.cli``."""

from flowkit.cli import main

main()
