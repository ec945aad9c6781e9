"""Workers and handlers."""

from flowkit.worker._context import RunArtifacts, RunContext
from flowkit.worker._functions import FunctionHandler, handler
from flowkit.worker._handlers import (
    Batch,
    BatchResult,
    FinalizeResult,
    Handler,
    PerRun,
    RoleHandler,
    per_run,
)
from flowkit.worker._inputs import InputAdapter, InputRequest, Pulled
from flowkit.worker._worker import Worker

__all__ = [
    "Batch",
    "BatchResult",
    "FinalizeResult",
    "FunctionHandler",
    "Handler",
    "InputAdapter",
    "InputRequest",
    "PerRun",
    "Pulled",
    "RoleHandler",
    "RunArtifacts",
    "RunContext",
    "Worker",
    "handler",
    "per_run",
]
