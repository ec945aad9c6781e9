"""Roles of a worker and their handlers."""

from collections.abc import Mapping, Sequence
from typing import Any

from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError, DecodeError
from flowkit.graph._control_types import role_fault
from flowkit.messages import RunNode
from flowkit.plugins import Plugins
from flowkit.worker._functions import AnyFunctionHandler, FunctionHandler
from flowkit.worker._handlers import (
    Handler,
    PerRun,
    check_made_without_arguments,
    place_of,
    wrong_declaration,
)

AnyHandler = Handler | AnyFunctionHandler
Served = AnyHandler | PerRun
"""The handler of a role: one that all runs share, or one that each run makes."""


def handlers_by_role(handlers: Any, plugins: Plugins, cfg: WorkerConfig) -> dict[str, Served]:
    """Return the handler of each role of the worker.

    Raises:
        ConfigError: a role has no handler, a value is not a handler, or the topic name of a role
            is too long.
    """
    given = _as_mapping(handlers)
    roles = list(dict.fromkeys(cfg.roles)) or list(given)
    if not roles:
        raise ConfigError("handlers: a worker needs at least one handler")
    served: dict[str, Served] = {}
    for role in roles:
        cfg.command_topic(role)
        check_role(role)
        if role in given:
            served[role] = _checked(role, given[role])
        elif role in plugins.handlers:
            served[role] = _offered(role, plugins)
        else:
            raise ConfigError(
                f"handlers: there is no handler for role {role!r}; there are handlers for"
                f" {', '.join(map(repr, given)) or 'no role'}"
            )
    return served


def check_role(role: str) -> None:
    """Refuse a role that is the name of a built-in type.

    Raises:
        ConfigError: it is one.
    """
    if (fault := role_fault(role)) is not None:
        raise ConfigError(f"handlers: {fault}")


def _as_mapping(handlers: Any) -> Mapping[str, Any]:
    if handlers is None:
        return {}
    if isinstance(handlers, Mapping):
        if wrong := [role for role in handlers if not isinstance(role, str) or not role]:
            raise ConfigError(f"handlers: a role must be a name, not {wrong[0]!r}")
        return handlers
    if not isinstance(handlers, Sequence) or isinstance(handlers, str | bytes):
        raise ConfigError(
            "handlers: expected a mapping of roles to handlers or a sequence of functions, not"
            f" {type(handlers).__name__}"
        )
    by_role: dict[str, Any] = {}
    for item in handlers:
        role = getattr(item, "role", None)
        if not isinstance(role, str) or not role:
            raise ConfigError(
                f'handlers: {item!r} has no role; declare it with @handler("role") or'
                " give a mapping"
            )
        if role in by_role:
            raise ConfigError(f"handlers: there are two handlers for role {role!r}")
        by_role[role] = item
    return by_role


def _offered(role: str, plugins: Plugins) -> Served:
    try:
        return _checked(role, plugins.handlers[role])
    except ConfigError as error:
        raise ConfigError(f"plugin {plugins.owner('handler', role)!r}: {error}") from error


def _checked(role: str, value: Any) -> Served:
    if isinstance(value, PerRun):
        _check_complete(value.make)
        return value
    if isinstance(value, type) and issubclass(value, Handler):
        _check_complete(value)
        check_made_without_arguments(
            value, f"give an instance, or per_run(lambda: {value.__name__}(...))"
        )
        return PerRun(value)
    if isinstance(value, Handler | FunctionHandler):
        _check_complete(value)
        return value
    if callable(value) and not isinstance(value, type):
        return FunctionHandler(value, role=role)
    raise ConfigError(
        f"handlers: the value for role {role!r} is not a handler: {value!r:.200}{place_of(value)}"
    )


def _check_complete(value: Any) -> None:
    """Check that a handler, or a class of handlers, has a ``process_batch``."""
    owner = value if isinstance(value, type) else type(value)
    if (
        issubclass(owner, Handler)
        and getattr(value.process_batch, "__func__", value.process_batch) is Handler.process_batch
    ):
        raise wrong_declaration(owner.__name__, "it has no process_batch", owner)


def handler_of(command: RunNode, served: Mapping[str, Served]) -> Served:
    """Return the handler of a command's role.

    Raises:
        DecodeError: the worker does not serve the role.
    """
    found = served.get(command.role)
    if found is None:
        raise DecodeError(f"this worker does not serve role {command.role!r}")
    return found


def make_handler(role: str, per_run: PerRun) -> AnyHandler:
    """Make the handler of one run.

    Raises:
        ConfigError: the made value is not a handler.
    """
    made = per_run.make()
    if type(made) is per_run.make:
        return made  # its class is checked
    if not isinstance(made, Handler | FunctionHandler):
        raise ConfigError(
            f"handlers: the value that per_run made for role {role!r} is not a handler:"
            f" {made!r:.200}{place_of(per_run.make)}"
        )
    _check_complete(made)
    return made
