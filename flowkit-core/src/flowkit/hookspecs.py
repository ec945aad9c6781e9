"""Hooks of plugins. A plugin implements the hooks that it needs, with the arguments that it needs.

A plugin is a module or object with functions of the names below. It is found through the
entry-point group ``flowkit``, or given as ``plugins=[...]``. ``@flowkit.hookimpl`` sets pluggy's
options ``tryfirst``, ``trylast`` and ``specname``.

An error that a hook raises after the start does not end the process.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

import pluggy

from flowkit.config import CommonConfig
from flowkit.measures import Measure
from flowkit.protocols import Bus, CheckResult, MetricsPage, Store, TriggerSource
from flowkit.tracing import TraceContext

if TYPE_CHECKING:
    from flowkit.graph import NodeSpec
    from flowkit.task import NewTask, NodeView, TaskView

PROJECT = "flowkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Optional marker of a function that implements a hook. It takes pluggy's options."""


@hookspec
def flowkit_configure(config: CommonConfig) -> Any | None:
    """Return a further plugin for a coordinator, worker or client of this configuration, or None.

    It is called once for each of them, before any other hook. Use it for hooks that cost something
    and are only needed by some configurations: where this hook returns None, they are not called.
    """


@hookspec(firstresult=True)
def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Return a bus (not yet entered) for an address such as ``kafka://host:9092``, or None.

    None means that the plugin does not open this address.

    Every plugin is asked for every address, so that FlowKit notices two plugins for one address.
    ``flowkit plugins`` also asks for addresses that are never opened. So check the address first,
    and connect, start threads or take locks only when the bus is entered: a bus that is not used is
    dropped without being entered.
    """


@hookspec(firstresult=True)
def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """Return a store (not yet entered) for an address or a database object, or None.

    None means that the plugin does not open this address or object. Every plugin is asked for every
    address, as for :func:`flowkit_open_bus`: connect when the store is entered.
    """


@hookspec(firstresult=True)
def flowkit_open_trigger(source: str, config: CommonConfig) -> TriggerSource | None:
    """Return a source of events for the address in a trigger's ``source``, or None.

    None means that the plugin does not know this address. Every plugin is asked for every address,
    as for :func:`flowkit_open_bus`: connect when the source is used. Raise a
    :class:`~flowkit.errors.ConfigError` for an address that is wrong: then the trigger is refused.
    """


@hookspec
def flowkit_check_bus(bus: Bus, config: CommonConfig) -> Awaitable[Sequence[CheckResult]] | None:
    """Return further checks for ``flowkit doctor``, of the bus or of a server that the plugin uses,
    to be awaited; None for none.

    The bus is open. A ``ConfigError`` that it raises is reported as that of the plugin, any other
    error of FlowKit as that of the bus.
    """


@hookspec
def flowkit_webhooks(config: CommonConfig) -> Collection[str] | None:
    """Return the names of the webhooks in this configuration; None for none.

    If there are any, ``flowkit dlq retry`` refuses the dead letters of other webhooks.
    """


@hookspec
def flowkit_register_handlers(register: Callable[[str, Any], None]) -> None:
    """Register handlers: ``register(role, handler)``.

    A worker gets the handler if its ``roles`` contain the role. A role is a string that is not
    empty. A handler is a :class:`~flowkit.worker.Handler`, a class of handlers, or a function.
    """


@hookspec
def flowkit_register_functions(register: Callable[[str, Any], None]) -> None:
    """Register coordinator functions: ``register(name, function)``.

    A name is a string that is not empty. A function is any callable.
    """


@hookspec
def flowkit_register_input_adapters(register: Callable[[str, Any], None]) -> None:
    """Register input adapters: ``register(name, adapter)``.

    An adapter is an async generator function, or an object that is called like one.
    """


@hookspec(firstresult=True)
def flowkit_classify_error(error: BaseException, node: "NodeSpec") -> tuple[str, bool] | None:
    """Return a reason code and whether the error is permanent.

    None leaves the decision to the handler.
    """


@hookspec
def flowkit_around_attempt(node: "NodeSpec", ctx: Any) -> AbstractContextManager[Any] | None:
    """Return a context manager that is open during an attempt in a worker, or None.

    It is entered when the input of the attempt is known, and left when the handler has ended,
    before the end is reported. ``node`` has its id, role and evaluated ``io``; ``ctx`` is the
    :class:`~flowkit.worker.RunContext` that the handler gets. The handler, also one that runs in a
    thread, sees the context variables that the manager sets. The managers of all plugins are
    nested; that of the first called plugin is the outermost.

    ``__exit__`` gets the error of the handler or of its cancellation. It cannot suppress it. An
    error on entering fails the attempt, and so does an error on leaving if the handler has
    succeeded: the node is then retried by its policy. After another error, an error on leaving is
    only logged.

    Managers are not async and do not block: they run in the event loop. For a resource whose end
    has to be awaited, use ``ctx.on_cleanup`` as well.
    """


@hookspec
def flowkit_around_batch(batch: Any, ctx: Any) -> AbstractContextManager[Any] | None:
    """Return a context manager that is open while a batch is processed, or None.

    It is entered for each try of a batch, inside those of :func:`flowkit_around_attempt`, and has
    the same rules; an error of it counts as one of the batch. ``batch`` is a
    :class:`~flowkit.worker.Batch`. A function that is called once has no batches.
    """


@hookspec(firstresult=True)
def flowkit_trace_submission(task_id: str, pipeline: str | None) -> TraceContext | None:
    """Return the trace of a task that is being submitted, or None.

    None leaves it in the trace that :func:`~flowkit.tracing.current_trace` returns. The hook is
    called by the process that makes the task: a client, or a coordinator for schedules and
    triggers. A child task is in the trace of its parent, and the hook is not called for it.
    """


@hookspec(firstresult=True)
def flowkit_before_submit(task: "NewTask") -> str | None:
    """Return a reason to refuse this submission, or None. Raising an error refuses it too."""


@hookspec
def flowkit_task_changed(before: "TaskView | None", after: "TaskView") -> None:
    """Observe a change of a task's status. The hook is called after the commit.

    ``before`` is None for a new task. The views have no nodes. While the hook is called,
    :func:`~flowkit.tracing.current_trace` returns the trace of the task.
    """


@hookspec
def flowkit_node_changed(task: "TaskView", before: "NodeView | None", after: "NodeView") -> None:
    """Observe a change of a node's status. The hook is called after the commit.

    ``task`` has no nodes. The current trace is that of the task.
    """


@hookspec
def flowkit_measured(measures: Sequence[Measure]) -> None:
    """Observe measurements: numbers of changes, and durations.

    :data:`flowkit.measures.MEASURES` lists their names. The process that does the work makes them:
    those of a change are made by the coordinator or client that committed it. The hook costs less
    than the hooks that observe tasks and nodes, because no views are made.
    """


@hookspec(firstresult=True)
def flowkit_open_metrics(client: Any) -> MetricsPage | None:
    """Return the page of the metrics of this process, or None.

    It is called when a coordinator, a worker or ``flowkit webhooks`` with a ``metrics_port``
    starts, and by ``flowkit web``. ``client`` is the coordinator or the :class:`~flowkit.Client`,
    from which the page may read figures about the installation when it is asked for; in workers and
    ``flowkit webhooks`` it is None. The client may not be started yet.
    """


@hookspec(firstresult=True)
def flowkit_open_page(config: CommonConfig) -> AbstractAsyncContextManager[str] | None:
    """Return an async context manager that serves a web page of the installation, or None.

    ``flowkit dev`` enters it, and prints its value, the address of the page. Only this machine may
    reach the page.
    """


@hookspec
def flowkit_encode_payload(data: bytes, context: str) -> bytes | None:
    """Return the encoded bytes of a payload, for example compressed or encrypted.

    None leaves the payload as it is. The hook is called before a payload goes to the store or the
    bus. A plugin that has this hook also has :func:`flowkit_decode_payload`.

    Payloads are the data of users and handlers and the state of tasks: everything except the fields
    by which stores and buses find records. ``context`` names the payload, such as ``task/ID/n3``,
    and is the same when it is decoded: bind the encrypted data to it. Encoding may make a message
    at most 4 KiB larger.
    """


@hookspec
def flowkit_decode_payload(data: bytes, context: str) -> bytes | None:
    """Return the bytes that :func:`flowkit_encode_payload` was given.

    Raise any error if that is impossible: the message then becomes a dead letter, or the task is
    quarantined.

    Anyone who can write to the store or the bus chooses the bytes that come here: limit the memory
    and time that you spend on them.
    """
