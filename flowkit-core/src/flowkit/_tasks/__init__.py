"""Tasks: submission, the processor of their events, conditions and views."""
