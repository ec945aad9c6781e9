"""Loading, checks and calls of plugins.

Entry points are not loaded by pluggy's ``load_setuptools_entrypoints``: it does not name the plugin
whose import fails, and lets ``SystemExit`` escape. Its ``check_pending`` runs too late to propose
the right name of a misspelt hook.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NoReturn

import pluggy

from flowkit import hookspecs
from flowkit._json.values import short
from flowkit._plugin_checks import (
    HOOK_PREFIX,
    HOOKS,
    fault_of_registration,
    faults_of_plugin,
    missing_part,
    wrong_object,
)
from flowkit._user_code.containment import (
    contained,
    error_text,
    error_type,
    loggable,
    message,
    origin,
)
from flowkit._user_code.failure_logs import log_failure
from flowkit._user_code.foreign_contexts import apart
from flowkit.config import CommonConfig
from flowkit.errors import ConfigError, FlowKitError, PayloadError, PluginError
from flowkit.measures import Measure
from flowkit.protocols import Bus, MetricsPage, Store, TriggerSource
from flowkit.tracing import TraceContext, current_trace

logger = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "flowkit"
OBSERVERS = ("flowkit_task_changed", "flowkit_node_changed", "flowkit_measured")
"""Hooks of which all implementations are called and no answer counts."""
BUILTIN = "builtin"
"""Name of the plugin with FlowKit's own functions and input adapters."""

KNOWN_ADDRESSES = {
    "kafka": "flowkit-kafka",
    "mongodb": "flowkit-mongo",
    "mongodb+srv": "flowkit-mongo",
    "memory": "flowkit-testing",
    "sqlite": "flowkit-sqlite",
}
"""Schemes of addresses, and the packages whose plugins open them."""


class _PluginManager(pluggy.PluginManager):
    """Plugin manager that treats every function named ``flowkit_…`` as a hook, marked or not.

    So a misspelt hook is noticed.
    """

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        options = super().parse_hookimpl_opts(plugin, name)
        if (
            options is None
            and name.startswith(HOOK_PREFIX)
            and callable(getattr(plugin, name, None))
        ):
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
    """Row of ``flowkit plugins``: a plugin and a hook, name or address that it provides."""

    plugin: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer of a plugin to a hook."""

    plugin: str
    value: Any


class Plugins:
    """Plugins of one coordinator, worker or client."""

    def __init__(self, plugins: Iterable[object] = (), *, discover: bool = True) -> None:
        """Load the installed plugins (unless ``discover`` is false) and the given ones.

        Raises:
            ConfigError: ``plugins`` is not a list.
            PluginError: a plugin cannot be imported; is a string, a class or None; has an
                unknown hook or one with a wrong signature; has an encoder without a decoder; or
                registers a value that cannot be used, or a name that is taken.
        """
        self._manager = _PluginManager(hookspecs.PROJECT)
        self._manager.add_hookspecs(hookspecs)
        if discover:
            self._discover()
        if not isinstance(plugins, Iterable):
            raise ConfigError(f"plugins: expected a list of plugins, not {type(plugins).__name__}")
        for plugin in plugins:
            self._register(plugin, _name_of(plugin))
        self._added: set[str] = set()
        """Names of the plugins that others have added for a configuration."""
        self._read_hooks()

    def _read_hooks(self) -> None:
        self._check_hooks()
        self._owners: dict[tuple[str, str], str] = {}
        """The plugin of each handler, function and input adapter, by kind and name."""
        self.handlers = self._collect("flowkit_register_handlers", "handler")
        self.functions = self._collect("flowkit_register_functions", "function")
        self.input_adapters = self._collect("flowkit_register_input_adapters", "input adapter")
        self._observers = {hook: self._implementations(hook) for hook in OBSERVERS}
        self.observes_tasks = bool(self._observers["flowkit_task_changed"])
        self.observes_nodes = bool(self._observers["flowkit_node_changed"])
        self.measures = bool(self._observers["flowkit_measured"])
        self.checks_submissions = bool(self._implementations("flowkit_before_submit"))
        self.surrounds_attempts = bool(self._implementations("flowkit_around_attempt"))
        self.surrounds_batches = bool(self._implementations("flowkit_around_batch"))
        self.traces_submissions = bool(self._implementations("flowkit_trace_submission"))
        self._encoders = self._implementations("flowkit_encode_payload")
        self._decoders = self._implementations("flowkit_decode_payload")

    def configured(self, config: CommonConfig) -> "Plugins":
        """Return these plugins with those that they add for this configuration.

        Raises:
            PluginError: a plugin raised, or what it adds is no plugin.
        """
        added = list(self.answers("flowkit_configure", config=config))
        if not added and not self._added:
            return self
        found = Plugins(discover=False)
        for name, plugin in self._manager.list_name_plugin():
            if name not in self._added:
                found._register(plugin, name)
        for answer in added:
            name = f"{answer.plugin} (configured)"
            found._register(answer.value, name)
            found._added.add(name)
        found._read_hooks()
        return found

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        return list(getattr(self._manager.hook, hook).get_hookimpls())

    def _discover(self) -> None:
        import importlib.metadata

        for entry_point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
            try:
                plugin = contained(entry_point.load)
            except Exception as error:
                if isinstance(origin(error), KeyboardInterrupt):
                    raise origin(error) from None  # the user pressed Ctrl+C
                raise PluginError(
                    f"plugin {entry_point.name!r} cannot be imported: {error_text(error)}"
                ) from origin(error)
            if plugin is None or not self._manager.is_registered(plugin):
                self._register(plugin, entry_point.name)

    def _register(self, plugin: object, name: str) -> None:
        if (what := wrong_object(plugin)) is not None:
            raise PluginError(
                f"plugin {name!r} is {what}; a plugin is a module or an object with hooks"
            )
        if self._manager.has_plugin(name):
            raise PluginError(f"two plugins are called {name!r}")
        try:
            for fault in faults_of_plugin(plugin, self._manager.parse_hookimpl_opts):
                raise PluginError(f"plugin {name!r}: {fault}")
            self._manager.register(plugin, name)
        except PluginError:
            raise
        except Exception as error:
            raise PluginError(f"plugin {name!r}: {error_text(error)}") from error

    def _check_hooks(self) -> None:
        for name, plugin in self._manager.list_name_plugin():
            if not self._manager.get_hookcallers(plugin):
                raise PluginError(
                    f"plugin {name!r}: it has no hook; hooks are functions whose names begin with"
                    f" {HOOK_PREFIX!r}"
                )

    def _collect(self, hook: str, kind: str) -> Mapping[str, Any]:
        """Call the hook of each plugin separately, so that a clash can name both."""
        offered: dict[str, Any] = {}
        for implementation in self._implementations(hook):

            def register(
                name: str, value: Any, *, plugin: str = implementation.plugin_name
            ) -> None:
                if (fault := fault_of_registration(kind, name, value)) is not None:
                    raise PluginError(fault)
                if (owner := self._owners.setdefault((kind, name), plugin)) != plugin:
                    raise _Clash(
                        f"{kind} {name!r} is offered by two plugins: {owner!r} and {plugin!r}"
                    )
                if name in offered:
                    raise PluginError(f"{kind} {name!r} is registered twice")
                offered[name] = value

            _call(hook, implementation, {"register": register})
        return offered

    # ------------------------------------------------------------ asking

    def owner(self, kind: str, name: str) -> str | None:
        """Return the plugin that registered a ``handler``, ``function`` or ``input adapter``.

        None means that it is FlowKit's own.
        """
        plugin = self._owners.get((kind, name))
        return None if plugin == BUILTIN else plugin

    def first(
        self, hook: str, *, check: Callable[[Any], Any] | None = None, **arguments: Any
    ) -> Answer | None:
        """Return the first answer to a hook that is not None, as ``check`` returned it.

        The plugin that was registered last is called first.

        Raises:
            FlowKitError: the plugin or ``check`` raised; the message names the plugin. An error
                of FlowKit keeps its type, any other becomes a ``PluginError``.
        """
        return next(self.answers(hook, check=check, **arguments), None)

    def answers(
        self,
        hook: str,
        *,
        check: Callable[[Any], Any] | None = None,
        then: Callable[[Any], object] | None = None,
        **arguments: Any,
    ) -> Iterator[Answer]:
        """Yield the answers to a hook that are not None, as :meth:`first` returns them.

        A plugin is called when the answer of the one before it has been used. ``then`` is called
        with each answer, in the context of the caller, and its errors are those of the plugin.
        """
        for implementation in reversed(self._implementations(hook)):
            value = _call(hook, implementation, arguments, check, then)
            if value is not None:
                yield Answer(implementation.plugin_name, value)

    def asks(self, hook: str) -> bool:
        """Return whether a plugin implements a hook."""
        return bool(self._implementations(hook))

    def open_bus(self, address: str, config: CommonConfig) -> Bus:
        """Return the bus that the first plugin opens for this address.

        Raises:
            ConfigError: no plugin opens the address.
            PluginError: the plugin raised, or its bus lacks a part of the protocol.
        """
        opened: Bus | None = self._opened("flowkit_open_bus", Bus, address=address, config=config)
        if opened is None:
            raise ConfigError(f"no plugin opens a bus at {_scheme(address)!r}{_advice(address)}")
        return opened

    def open_store(self, source: Any, config: CommonConfig) -> Store:
        """Return the store that the first plugin opens for this address or object.

        Raises:
            ConfigError: no plugin opens the address or object.
            PluginError: the plugin raised, or its store lacks a part of the protocol.
        """
        opened: Store | None = self._opened(
            "flowkit_open_store", Store, source=source, config=config
        )
        if opened is None:
            raise ConfigError(f"no plugin opens a store from {_place(source)!r}{_advice(source)}")
        return opened

    def open_trigger(self, source: str, config: CommonConfig) -> TriggerSource:
        """Return the source of events that the first plugin opens for this address.

        Raises:
            ConfigError: no plugin opens the address, or it is wrong.
            PluginError: the plugin raised, or its source lacks a part of the protocol.
        """
        opened: TriggerSource | None = self._opened(
            "flowkit_open_trigger", TriggerSource, source=source, config=config
        )
        if opened is None:
            raise ConfigError(
                f"no installed package knows the source {short(_scheme(source))}; FlowKit itself"
                " knows task:PIPELINE"
            )
        return opened

    def open_metrics(self, client: Any) -> MetricsPage | None:
        """Return the page of metrics that the first plugin opens, or None if none does.

        Raises:
            PluginError: the plugin raised, or its page lacks a part of the protocol.
        """
        answer = self.first("flowkit_open_metrics", check=_checked_page, client=client)
        return None if answer is None else answer.value

    def open_page(self, config: CommonConfig) -> AbstractAsyncContextManager[str] | None:
        """Return the server of the web page that the first plugin opens, or None if none does.

        Raises:
            PluginError: the plugin raised, or returned something else.
        """
        answer = self.first("flowkit_open_page", check=_checked_server, config=config)
        return None if answer is None else answer.value

    def webhooks(self, config: CommonConfig) -> frozenset[str]:
        """Return the names of the webhooks in a configuration.

        Raises:
            PluginError: a plugin raised, or returned something else.
        """
        answers = self.answers("flowkit_webhooks", check=_checked_names, config=config)
        return frozenset(name for answer in answers for name in answer.value)

    def _opened(self, hook: str, protocol: type[Any], **arguments: Any) -> Any:
        first: Answer | None = None
        unused: list[str] = []
        for implementation in reversed(self._implementations(hook)):
            if first is not None:
                unused += (
                    [implementation.plugin_name]
                    if _does_answer(hook, implementation, arguments)
                    else []
                )
            elif (value := _call(hook, implementation, arguments)) is not None:
                first = Answer(implementation.plugin_name, value)
        if first is None:
            return None
        if (part := missing_part(first.value, protocol)) is not None:
            raise PluginError(
                f"plugin {first.plugin!r}: what {hook} returned lacks {part} (see"
                f" flowkit.protocols.{protocol.__name__})"
            )
        if unused:
            place = _place(arguments.get("address", arguments.get("source")))
            logger.warning(
                "Plugins %s and %s answer %s; %s is used",
                first.plugin,
                ", ".join(unused),
                place,
                first.plugin,
                extra={"action": "plugins_clash", "plugin": first.plugin, "unused": unused},
            )
        return first.value

    @property
    def encodes_payloads(self) -> bool:
        """Whether a plugin encodes payloads."""
        return bool(self._encoders or self._decoders)

    def encode_payload(self, data: bytes, context: str = "") -> bytes:
        """Return a payload after every plugin with a codec has encoded it, one after the other.

        Raises:
            PayloadError: a plugin cannot encode it.
        """
        for implementation in self._encoders:
            data = _changed(implementation, "encode", data, context)
        return data

    def decode_payload(self, data: bytes, context: str = "") -> bytes:
        """Return the payload that :meth:`encode_payload` was given.

        Raises:
            PayloadError: a plugin cannot decode it.
        """
        for implementation in reversed(self._decoders):
            data = _changed(implementation, "decode", data, context)
        return data

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call every observer. One that raises is logged by name, and the others are called."""
        for implementation in self._observers[hook]:
            self._harmless(hook, implementation, arguments)

    def submission_trace(self, task_id: str, pipeline: str | None) -> TraceContext | None:
        """Return the trace of a new task: that of the first plugin that names one, else the current
        one. A plugin that raises is logged.
        """
        if self.traces_submissions:
            arguments = {"task_id": task_id, "pipeline": pipeline}
            for implementation in reversed(self._implementations("flowkit_trace_submission")):
                trace = self._harmless(
                    "flowkit_trace_submission", implementation, arguments, _checked_trace
                )
                if trace is not None:
                    return trace  # type: ignore[no-any-return]
        return current_trace()

    def _harmless(
        self,
        hook: str,
        implementation: pluggy.HookImpl,
        arguments: Mapping[str, Any],
        check: Callable[[Any], Any] | None = None,
    ) -> Any:
        """Return what a plugin answers. An error is logged, and counts as no answer."""
        try:
            return _call(hook, implementation, arguments, check)
        except FlowKitError as error:
            log_failure(
                logger,
                self,
                "Plugin %s raised in %s",
                implementation.plugin_name,
                hook,
                text=str(error),
                error=error,
                level=logging.ERROR,
                extra={"action": "observer_failed", "plugin": implementation.plugin_name},
            )
            return None

    def measure(self, *measures: Measure) -> None:
        """Give measures to the plugins that observe them."""
        if self.measures and measures:
            self.notify("flowkit_measured", measures=measures)

    # ------------------------------------------------------------ listing

    def provided(self, config: CommonConfig | None = None) -> list[Provided]:
        """Return the rows of ``flowkit plugins``: hooks, names and addresses of each plugin."""
        hooks = [
            Provided(name, "hook", attribute)
            for name, plugin in self._manager.list_name_plugin()
            for attribute in dir(plugin)
            if attribute in HOOKS
        ]
        offered = [Provided(plugin, kind, name) for (kind, name), plugin in self._owners.items()]
        rows = [*hooks, *offered, *self._answered(config or CommonConfig())]
        return sorted(rows, key=lambda row: (row.plugin, row.kind, row.name))

    def _answered(self, config: CommonConfig) -> Iterator[Provided]:
        """Yield a row for each plugin that opens a configured address or one of a known scheme."""
        for kind, hook, argument, configured, host in (
            ("bus", "flowkit_open_bus", "address", config.bus_address(config.db), "localhost"),
            ("store", "flowkit_open_store", "source", config.db, "localhost"),
            ("trigger", "flowkit_open_trigger", "source", None, "localhost/topic"),
        ):
            places = {f"{scheme}://": f"{scheme}://{host}" for scheme in KNOWN_ADDRESSES}
            places["sqlite://"] = "sqlite:///flowkit.db"  # a file has no host
            if configured:
                places[_place(configured)] = configured
            for place, address in places.items():
                arguments = {argument: address, "config": config}
                names = [
                    one.plugin_name
                    for one in reversed(self._implementations(hook))
                    if _does_answer(hook, one, arguments)
                ]
                for name in names:
                    which = (
                        ""
                        if len(names) == 1
                        else " (used)"
                        if name == names[0]
                        else f" (not used: {names[0]} answers first)"
                    )
                    yield Provided(name, kind, place + which)


def _checked_trace(trace: Any) -> Any:
    if isinstance(trace, TraceContext):
        return trace
    raise PluginError(f"a trace is a TraceContext, not {type(trace).__name__}")


def _checked_page(page: Any) -> Any:
    if (part := missing_part(page, MetricsPage)) is not None:
        raise PluginError(f"the page lacks {part} (see flowkit.protocols.MetricsPage)")
    return page


def _checked_server(server: Any) -> Any:
    if not isinstance(server, AbstractAsyncContextManager):
        raise PluginError("it returned something else than an async context manager")
    return server


def _checked_names(names: Any) -> Any:
    if isinstance(names, str) or not isinstance(names, Collection):
        raise PluginError("it returned something else than names")
    return names


class _Clash(PluginError):
    """Two plugins register one name. The message names both."""


def _call(
    hook: str,
    implementation: pluggy.HookImpl,
    arguments: Mapping[str, Any],
    check: Callable[[Any], Any] | None = None,
    then: Callable[[Any], object] | None = None,
) -> Any:
    """Call a hook of one plugin.

    All calls of hooks pass through this function, so that every error is contained and names its
    plugin.
    """
    try:
        return contained(_used_answer, implementation, arguments, check, then)
    except _Clash:
        raise
    except Exception as error:
        raise_named(implementation.plugin_name, hook, origin(error))


def _used_answer(
    implementation: pluggy.HookImpl,
    arguments: Mapping[str, Any],
    check: Callable[[Any], Any] | None,
    then: Callable[[Any], object] | None,
) -> Any:
    value = apart(_checked_answer, implementation, arguments, check)
    if then is not None and value is not None:
        then(value)
    return value


def _checked_answer(
    implementation: pluggy.HookImpl,
    arguments: Mapping[str, Any],
    check: Callable[[Any], Any] | None,
) -> Any:
    value = implementation.function(*(arguments[name] for name in implementation.argnames))
    return value if check is None or value is None else check(value)


def _does_answer(hook: str, implementation: pluggy.HookImpl, arguments: Mapping[str, Any]) -> bool:
    """Return whether a plugin opens an address, although another one is used."""
    try:
        return _call(hook, implementation, arguments) is not None
    except FlowKitError as error:
        logger.warning(
            "%s", error, extra={"action": "plugin_failed", "plugin": implementation.plugin_name}
        )
        return False


def raise_named(plugin: str, hook: str, error: BaseException) -> NoReturn:
    """Raise the error with the name of the plugin.

    The type stays the same if it is one of FlowKit's that takes only a message; else it is
    ``PluginError``.
    """
    kind = type(error)
    if isinstance(error, FlowKitError) and not any(
        "__init__" in vars(base) for base in kind.__mro__ if issubclass(base, FlowKitError)
    ):
        raise kind(f"plugin {plugin!r}: {message(error)}") from error
    raise PluginError(f"plugin {plugin!r}: {hook} failed: {error_text(error)}") from error


def _changed(codec: pluggy.HookImpl, verb: str, data: bytes, context: str) -> bytes:
    try:
        changed = _call(f"flowkit_{verb}_payload", codec, {"data": data, "context": context})
    except FlowKitError as error:
        what = f"plugin {codec.plugin_name!r} cannot {verb} {context or 'a payload'}"
        if verb == "encode":
            # The text of the error may contain the payload, which is not encoded yet.
            logger.debug("%s", what, exc_info=loggable(error))
            raise PayloadError(
                f"{what}: {error_type(error.__cause__ or error)}; its text is logged at DEBUG"
            ) from None
        raise PayloadError(f"{what}: {error_text(error.__cause__ or error)}") from error.__cause__
    if changed is None:
        return data
    if not isinstance(changed, bytes):
        raise PayloadError(
            f"plugin {codec.plugin_name!r}: {verb}d payloads are bytes, not"
            f" {type(changed).__name__}"
        )
    if verb == "encode" and data and not changed:
        raise PayloadError(
            f"plugin {codec.plugin_name!r}: encoded {context or 'a payload'} of {len(data)} bytes"
            " to nothing"
        )
    return changed


def _name_of(plugin: object) -> str:
    if isinstance(plugin, str | None):
        return str(plugin)
    try:
        name = contained(getattr, plugin, "__name__", None)
    except Exception:  # the plugin's own __getattr__ failed
        name = None
    return (
        name if isinstance(name, str) else f"{type(plugin).__module__}.{type(plugin).__qualname__}"
    )


def _place(source: Any) -> str:
    """Return an address without credentials, or the type of an object."""
    return (
        _scheme(source)
        if isinstance(source, str)
        else f"{type(source).__module__}.{type(source).__qualname__}"
    )


def _scheme(address: str) -> str:
    """Return an address without credentials."""
    scheme, separator, rest = address.partition("://") if "://" in address else ("", "", address)
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def spelling_advice(address: str) -> str:
    """Return how to write an address that is a path, or has a scheme in upper case."""
    scheme, separator, _ = address.partition("://")
    if separator and scheme not in KNOWN_ADDRESSES and scheme.lower() in KNOWN_ADDRESSES:
        return f"; write {scheme.lower()}:// in lower case"
    if not separator and address and not {":", "@"} & set(address):
        return f"; for a file write sqlite:///{address}"
    return ""


def _advice(source: Any) -> str:
    """Return the end of the error for an address or object that no plugin opens."""
    if not isinstance(source, str):
        return "; pip install flowkit-mongo"
    scheme, separator, _ = source.partition("://")
    if not separator:
        form = "; an address has the form SCHEME://HOST, such as mongodb://host/name"
        return form + spelling_advice(source)
    package = KNOWN_ADDRESSES.get(scheme)
    return f"; pip install {package}" if package else spelling_advice(source)
