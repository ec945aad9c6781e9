"""Finding plugins, checking them, and asking them."""

import inspect
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pluggy

from flowkit import hookspecs
from flowkit._containment import contained, error_text, origin
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError, PayloadError, PluginError
from flowkit.protocols import Bus, Store

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "flowkit"
HOOK_PREFIX = "flowkit_"


class _PluginManager(pluggy.PluginManager):
    """Takes every function named ``flowkit_…`` for a hook, marked or not, so that a misspelt one is noticed."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        options = super().parse_hookimpl_opts(plugin, name)
        if options is None and name.startswith(HOOK_PREFIX) and callable(getattr(plugin, name, None)):
            return {
                "wrapper": False,
                "hookwrapper": False,
                "optionalhook": False,
                "tryfirst": False,
                "trylast": False,
                "specname": None,
            }
        return options


@dataclass(frozen=True, slots=True)
class Provided:
    """One row of ``flowkit plugins``: a plugin and what it answers to or offers."""

    plugin: str
    kind: str
    name: str


class Plugins:
    """The plugins of one coordinator, worker or client."""

    def __init__(self, plugins: Iterable[object] = (), *, discover: bool = True) -> None:
        """Load the installed plugins (unless ``discover`` is false) and those given.

        Raises:
            PluginError: one cannot be imported, has a hook that does not exist or the wrong arguments, or offers a name that another
                one offers.
        """
        self._manager = _PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        if discover:
            self._discover()
        for plugin in plugins:
            self._register(plugin, _name_of(plugin))
        self._check_pending()
        self.handlers = self._collect("flowkit_register_handlers", "handler")
        self.functions = self._collect("flowkit_register_functions", "function")
        self.input_adapters = self._collect("flowkit_register_input_adapters", "input adapter")
        self.observes_tasks = bool(self._manager.hook.flowkit_task_changed.get_hookimpls())
        self.observes_nodes = bool(self._manager.hook.flowkit_node_changed.get_hookimpls())
        self.checks_submissions = bool(self._manager.hook.flowkit_before_submit.get_hookimpls())
        self.classifies_errors = bool(self._manager.hook.flowkit_classify_error.get_hookimpls())
        self._encoders = self._manager.hook.flowkit_encode_payload.get_hookimpls()
        self._decoders = self._manager.hook.flowkit_decode_payload.get_hookimpls()

    def _discover(self) -> None:
        import importlib.metadata

        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            try:
                plugin = contained(entry_point.load)
            except Exception as error:
                raise PluginError(f"plugin {entry_point.name!r} cannot be imported: {error_text(error)}") from origin(error)
            if not self._manager.is_registered(plugin):
                self._register(plugin, entry_point.name)

    def _register(self, plugin: object, name: str) -> None:
        if self._manager.has_plugin(name):
            raise PluginError(f"two plugins are called {name!r}")
        try:
            self._manager.register(plugin, name)
        except (pluggy.PluginValidationError, ValueError) as error:
            raise PluginError(f"plugin {name!r}: {error}") from None

    def _check_pending(self) -> None:
        for name, plugin in self._manager.list_name_plugin():
            for attribute in dir(plugin):
                options = self._manager.parse_hookimpl_opts(plugin, attribute) if plugin is not None else None
                if hasattr(hookspecs, attribute) and attribute.startswith(HOOK_PREFIX) and not callable(getattr(plugin, attribute)):
                    raise PluginError(f"plugin {name!r}: {attribute} is not a function")
                if options is None or options.get("optionalhook"):
                    continue
                hook = options.get("specname") or attribute
                if not hasattr(hookspecs, hook):
                    raise PluginError(f"plugin {name!r}: there is no hook {hook!r}{_did_you_mean(hook)}")
                if (fault := _misshapen(getattr(plugin, attribute), hook)) is not None:
                    raise PluginError(f"plugin {name!r}: {hook} {fault}")

    def _collect(self, hook: str, kind: str) -> Mapping[str, Any]:
        """Ask each plugin by itself, so that a clash can name both."""
        offered: dict[str, Any] = {}
        owners: dict[str, str] = {}
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():

            def register(name: str, value: Any, *, plugin: str = implementation.plugin_name) -> None:
                if name in owners:
                    raise PluginError(f"{kind} {name!r} is offered by two plugins: {owners[name]!r} and {plugin!r}")
                owners[name] = plugin
                offered[name] = value

            try:
                contained(implementation.function, *([register] if "register" in implementation.argnames else []))
            except PluginError:
                raise
            except Exception as error:
                raise PluginError(f"plugin {implementation.plugin_name!r}: {hook} raised {error_text(error)}") from origin(error)
        return offered

    def open_bus(self, address: str, config: CommonConfig) -> Bus:
        """The bus that the first plugin knows for this address.

        Raises:
            ConfigError: none does.
        """
        bus: Bus | None = self.ask("flowkit_open_bus", address=address, config=config)
        if bus is None:
            raise ConfigError(f"no plugin opens a bus at {_scheme(address)!r}{_to_install(address)}")
        return bus

    def open_store(self, source: Any, config: CommonConfig) -> Store:
        """The store that the first plugin knows for this address or object.

        Raises:
            ConfigError: none does.
        """
        store: Store | None = self.ask("flowkit_open_store", source=source, config=config)
        if store is None:
            what = _scheme(source) if isinstance(source, str) else type(source).__module__ + "." + type(source).__qualname__
            raise ConfigError(f"no plugin opens a store from {what!r}{_to_install(source)}")
        return store

    def ask(self, hook: str, **arguments: Any) -> Any:
        """Return the first answer of a plugin that is not None.

        Raises:
            Escaped: a plugin raised what is no ``Exception``. An ``Exception`` passes unchanged.
        """
        return contained(getattr(self._manager.hook, hook), **arguments)

    @property
    def encodes_payloads(self) -> bool:
        """Whether a plugin has a codec."""
        return bool(self._encoders or self._decoders)

    def encode_payload(self, data: bytes, context: str = "") -> bytes:
        """A payload as every plugin with a codec changed it, one after the other.

        Raises:
            PayloadError: one of them cannot.
        """
        for implementation in self._encoders:
            data = _changed(implementation, "encode", data, context)
        return data

    def decode_payload(self, data: bytes, context: str = "") -> bytes:
        """What :meth:`encode_payload` was given.

        Raises:
            PayloadError: a plugin cannot tell.
        """
        for implementation in reversed(self._decoders):
            data = _changed(implementation, "decode", data, context)
        return data

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tell every observer; one that raises is logged by name and stops nobody."""
        for implementation in getattr(self._manager.hook, hook).get_hookimpls():
            try:
                contained(implementation.function, *(arguments[name] for name in implementation.argnames))
            except Exception as error:
                logger.error(
                    "Plugin %s raised in %s: %s", implementation.plugin_name, hook, error_text(error), exc_info=origin(error),
                    extra={"action": "observer_failed", "plugin": implementation.plugin_name},
                )  # fmt: skip

    def provided(self) -> list[Provided]:
        """Who provides what, for ``flowkit plugins``."""
        rows = [
            Provided(name, "hook", attribute)
            for name, plugin in self._manager.list_name_plugin()
            for attribute in dir(plugin)
            if attribute.startswith(HOOK_PREFIX) and hasattr(hookspecs, attribute)
        ]
        for kind, hook in (
            ("handler", "flowkit_register_handlers"),
            ("function", "flowkit_register_functions"),
            ("input adapter", "flowkit_register_input_adapters"),
        ):
            for implementation in getattr(self._manager.hook, hook).get_hookimpls():
                names: list[str] = []
                implementation.function(lambda name, value, names=names: names.append(name))
                rows += [Provided(implementation.plugin_name, kind, name) for name in names]
        return sorted(rows, key=lambda row: (row.plugin, row.kind, row.name))


def _changed(codec: pluggy.HookImpl, verb: str, data: bytes, context: str) -> bytes:
    arguments = {"data": data, "context": context}
    try:
        changed = contained(codec.function, *(arguments[name] for name in codec.argnames))
    except Exception as error:
        what = f"plugin {codec.plugin_name!r} cannot {verb} {context or 'a payload'}"
        raise PayloadError(f"{what}: {error_text(error)}") from origin(error)
    if changed is None:
        return data
    if not isinstance(changed, bytes):
        raise PayloadError(f"plugin {codec.plugin_name!r}: {verb}d payloads are bytes, not {type(changed).__name__}")
    return changed


def _name_of(plugin: object) -> str:
    name = getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else f"{type(plugin).__module__}.{type(plugin).__qualname__}"


def _misshapen(function: Any, hook: str) -> str | None:
    """What pluggy takes and never calls as its author expects."""
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async; hooks are plain functions, called and not awaited"
    kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
    if kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
        return "takes any arguments; name those that it wants"
    if hook.startswith("flowkit_register_") and "register" not in inspect.signature(function).parameters:
        return "does not take 'register', with which it is to register something"
    return None


def _did_you_mean(hook: str) -> str:
    import difflib

    close = difflib.get_close_matches(hook, [name for name in dir(hookspecs) if name.startswith(HOOK_PREFIX)], 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _scheme(address: str) -> str:
    """The address without what may be secret in it."""
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _to_install(source: Any) -> str:
    known = {"kafka": "flowkit-kafka", "mongodb": "flowkit-mongo", "mongodb+srv": "flowkit-mongo", "memory": "flowkit-testing"}
    package = known.get(source.partition("://")[0]) if isinstance(source, str) else "flowkit-mongo"
    return f"; pip install {package}" if package else ""
