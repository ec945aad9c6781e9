"""Workers, and what handlers are made of."""

from flowkit.worker._context import RunContext
from flowkit.worker._worker import Worker
from flowkit.worker.artifacts import RunArtifacts
from flowkit.worker.functions import FunctionHandler, handler
from flowkit.worker.handlers import Batch, BatchResult, FinalizeResult, Handler, PerRun, RoleHandler, per_run
from flowkit.worker.inputs import InputAdapter, InputRequest, Pulled

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
