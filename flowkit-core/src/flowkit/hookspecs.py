"""The hooks through which everything meets. A plugin implements those it needs, with the arguments
it needs.

A plugin is a module or object whose functions have the names below; it is found through the
entry-point group ``flowkit`` or given as ``plugins=[...]``. ``@flowkit.hookimpl`` sets pluggy's
options ``tryfirst``, ``trylast`` and ``specname``.

What a hook raises once the process runs does not end the process, whatever it is.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pluggy

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, Store

if TYPE_CHECKING:
    from flowkit.graph import NodeSpec
    from flowkit.task import NewTask, NodeView, TaskView

PROJECT = "flowkit"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def flowkit_open_bus(address: str, config: CommonConfig) -> Bus | None:
    """Return a bus (not yet entered) for an address such as ``kafka://host:9092``, or None if the
    address is not yours.

    Every plugin is asked for every address, so that two plugins for one address are noticed, and
    ``flowkit plugins`` asks for addresses that nothing opens. So check the address first, and
    connect, start threads or take locks only when the bus is entered: a bus that is not used is
    dropped without being entered.
    """


@hookspec(firstresult=True)
def flowkit_open_store(source: Any, config: CommonConfig) -> Store | None:
    """Return a store (not yet entered) for an address or a database object, or None if it is not
    yours.

    Every plugin is asked for every address, as for :func:`flowkit_open_bus`: connect when the store
    is entered.
    """


@hookspec
def flowkit_register_handlers(register: Callable[[str, Any], None]) -> None:
    """Offer handlers: ``register(role, handler)``. A worker that names the role in its ``roles``
    gets it.

    A role is a string that is not empty, and a handler a :class:`~flowkit.worker.Handler`, a class
    of handlers, or a function.
    """


@hookspec
def flowkit_register_functions(register: Callable[[str, Any], None]) -> None:
    """Offer coordinator functions: ``register(name, function)``. A name is a string that is not
    empty, and a function can be called.
    """


@hookspec
def flowkit_register_input_adapters(register: Callable[[str, Any], None]) -> None:
    """Offer input adapters: ``register(name, adapter)``. An adapter is an async generator function,
    or an object called like one.
    """


@hookspec(firstresult=True)
def flowkit_classify_error(error: BaseException, node: "NodeSpec") -> tuple[str, bool] | None:
    """A reason code and whether the error is permanent, or None to leave it to the handler."""


@hookspec(firstresult=True)
def flowkit_before_submit(task: "NewTask") -> str | None:
    """A reason to refuse this submission, or None. Raising refuses it as well."""


@hookspec
def flowkit_task_changed(before: "TaskView | None", after: "TaskView") -> None:
    """A task's status changed; called after the commit. ``before`` is None for a new task. The
    views have no nodes.
    """


@hookspec
def flowkit_node_changed(task: "TaskView", before: "NodeView | None", after: "NodeView") -> None:
    """A node's status changed; called after the commit. ``task`` has no nodes."""


@hookspec
def flowkit_encode_payload(data: bytes, context: str) -> bytes | None:
    """Change the bytes of a payload on their way to the store or the bus: compress them, encrypt
    them. None leaves them as they are.

    A plugin that has this hook also has :func:`flowkit_decode_payload`.

    Payloads are what users and their handlers gave, and the state of tasks: everything but what
    stores and buses find things by. ``context`` says what the payload is of, such as
    ``task/ID/n3``, and is the same when it is decoded: bind what you encrypt to it. A message may
    become at most 4 KiB larger.
    """


@hookspec
def flowkit_decode_payload(data: bytes, context: str) -> bytes | None:
    """Undo :func:`flowkit_encode_payload`. Raise what you like where that cannot be done: a message
    is parked then, a task put aside.

    Whoever can write to the store or the bus chooses what comes here: bound what you make of it.
    """
