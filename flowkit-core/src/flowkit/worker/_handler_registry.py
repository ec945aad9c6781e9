"""Registry of handlers by role."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from flowkit.config import WorkerConfig
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.worker._declarations import check_made_without_arguments, place_of, wrong_declaration
from flowkit.worker._functions import FunctionHandler
from flowkit.worker._handlers import Handler, PerRun

AnyHandler = Handler | FunctionHandler
Make = Callable[[], AnyHandler]


def handlers_by_role(handlers: Any, plugins: Plugins, cfg: WorkerConfig) -> dict[str, Make]:
    """Return, for each role of the worker, a function that gives a run its handler.

    Raises:
        ConfigError: a role has no handler, a value is not a handler, or the topic name of a role
            is too long.
    """
    given = _as_mapping(handlers)
    roles = list(dict.fromkeys(cfg.roles)) or list(given)
    if not roles:
        raise ConfigError("handlers: a worker needs at least one handler")
    served: dict[str, Make] = {}
    for role in roles:
        cfg.command_topic(role)
        if role in given:
            served[role] = _maker(role, given[role])
        elif role in plugins.handlers:
            served[role] = _offered(role, plugins)
        else:
            raise ConfigError(
                f"handlers: there is no handler for role {role!r}; there are handlers for"
                f" {', '.join(map(repr, given)) or 'no role'}"
            )
    return served


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


def _offered(role: str, plugins: Plugins) -> Make:
    try:
        return _maker(role, plugins.handlers[role])
    except ConfigError as error:
        raise ConfigError(f"plugin {plugins.owner('handler', role)!r}: {error}") from error


def _maker(role: str, value: Any) -> Make:
    if isinstance(value, PerRun):
        _check_complete(value.make)
        return partial(_made, role, value.make)
    if isinstance(value, type) and issubclass(value, Handler):
        _check_complete(value)
        check_made_without_arguments(
            value, f"give an instance, or per_run(lambda: {value.__name__}(...))"
        )
        return value
    if isinstance(value, Handler | FunctionHandler):
        _check_complete(value)
        return lambda: value
    if callable(value) and not isinstance(value, type):
        function = FunctionHandler(value, role=role)
        return lambda: function
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


def _made(role: str, make: Callable[[], Any]) -> AnyHandler:
    made = make()
    if not isinstance(made, Handler | FunctionHandler):
        raise ConfigError(
            f"handlers: the value that per_run made for role {role!r} is not a handler:"
            f" {made!r:.200}{place_of(make)}"
        )
    _check_complete(made)
    return made
