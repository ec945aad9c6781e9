"""Checks of plugins: hooks, registered values, and the parts of their buses and stores."""

import difflib
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from types import NoneType
from typing import Any, get_type_hints

from flowkit import hookspecs
from flowkit.protocols import ArtifactStore, RecordStore

HOOK_PREFIX = "flowkit_"
HOOKS: Mapping[str, frozenset[str]] = {
    name: frozenset(inspect.signature(function).parameters)
    for name, function in vars(hookspecs).items()
    if name.startswith(HOOK_PREFIX) and inspect.isfunction(function)
}
"""The hooks and their arguments."""

NEEDED_ARGUMENTS = {
    "flowkit_register_handlers": "register",
    "flowkit_register_functions": "register",
    "flowkit_register_input_adapters": "register",
    "flowkit_encode_payload": "data",
    "flowkit_decode_payload": "data",
}
CONTEXTS = frozenset({"flowkit_around_attempt", "flowkit_around_batch"})
"""Hooks that return a context manager."""
PAIRS = (("flowkit_encode_payload", "flowkit_decode_payload"),)
NOT_PLUGINS = {str: "a string", type: "a class; give an instance of it", NoneType: "None"}

LIKE_A_HOOK = 0.85
PARTS: Mapping[str, type] = {"artifacts": ArtifactStore, "records": RecordStore}
"""Attributes of a store that have a protocol of their own."""

Options = Callable[[object, str], Any]


def wrong_object(plugin: object) -> str | None:
    """Return why an object cannot be a plugin, or None."""
    return next((what for kind, what in NOT_PLUGINS.items() if isinstance(plugin, kind)), None)


def faults_of_plugin(plugin: object, options_of: Options) -> Iterator[str]:
    """Yield the faults of a plugin's hooks.

    ``options_of`` returns pluggy's options of an attribute, or None if it is not a hook.
    """
    found: set[str] = set()
    for attribute in dir(plugin):
        options = options_of(plugin, attribute)
        if options is None:
            if (fault := _fault_of_other(plugin, attribute)) is not None:
                yield fault
            continue
        hook = options["specname"] or attribute
        found.add(hook)
        if hook not in HOOKS:
            if not options["optionalhook"]:
                yield f"there is no hook {hook!r}{_did_you_mean(hook)}"
        elif options["wrapper"] or options["hookwrapper"]:
            yield f"{hook} is a hook wrapper; FlowKit does not call wrappers"
        elif (
            fault := _fault_of_kind(plugin, attribute)
            or _fault_of_hook(getattr(plugin, attribute), hook)
        ) is not None:
            yield f"{hook} {fault}"
    for pair in PAIRS:
        if len(there := found.intersection(pair)) == 1:
            (missing,) = set(pair) - there
            yield f"it has {there.pop()} but not {missing}"


def _fault_of_other(plugin: object, attribute: str) -> str | None:
    """Return the fault of an attribute that is not a hook but looks like one, or None."""
    if attribute in HOOKS:
        return f"{attribute} is not a function"
    if attribute[:1].lower() != "f" or not callable(getattr(plugin, attribute)):
        return None
    close = difflib.get_close_matches(attribute.lower(), HOOKS, 1, LIKE_A_HOOK)
    return f"{attribute!r} is no hook; did you mean {close[0]!r}?" if close else None


def _fault_of_kind(plugin: object, attribute: str) -> str | None:
    """Return why pluggy would not accept this attribute as a function, or None."""
    if isinstance(
        inspect.getattr_static(plugin, attribute, None), property | functools.cached_property | None
    ):
        kind = "computed when it is read"
    elif isinstance(function := getattr(plugin, attribute), type):
        kind = f"the class {function.__name__!r}"
    elif isinstance(function, functools.partial):
        kind = "a functools.partial"
    elif inspect.isbuiltin(function):
        kind = f"the built-in function {function.__name__!r}"
    elif not inspect.isfunction(function) and not inspect.ismethod(function):
        kind = f"an object of the type {type(function).__name__!r}"
    else:
        return None
    return f"is {kind}; a hook is a function or a method: define one that calls it"


def _fault_of_hook(function: Any, hook: str) -> str | None:
    """Return why pluggy would accept this hook and not call it as intended, or None."""
    if hook in CONTEXTS and (fault := _fault_of_context(function)) is not None:
        return fault
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return "is async; hooks are plain functions, called and not awaited"
    if inspect.isgeneratorfunction(function):
        return "is a generator; hooks are plain functions, called and not iterated"
    parameters = inspect.signature(function).parameters
    if any(
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters.values()
    ):
        return "takes any arguments; name those that it wants"
    for name, parameter in parameters.items():
        has_default = parameter.default is not parameter.empty
        if name not in HOOKS[hook] and not has_default:
            return (
                f"takes {name!r}; the arguments of this hook are {', '.join(sorted(HOOKS[hook]))}"
            )
        if name in HOOKS[hook] and has_default:
            return f"gives {name!r} a default; an argument with a default is not passed"
        if parameter.kind is parameter.KEYWORD_ONLY and not has_default:
            return f"takes {name!r} by keyword only; arguments are passed by position"
    needed = NEEDED_ARGUMENTS.get(hook)
    return (
        None
        if needed is None or needed in parameters
        else f"does not take {needed!r}, which it needs"
    )


def _fault_of_context(function: Any) -> str | None:
    """Return why a generator cannot be a hook that returns a context manager, or None."""
    if inspect.isasyncgenfunction(inspect.unwrap(function)):
        return "is async; its context manager is not awaited"
    if inspect.isgeneratorfunction(function):
        return "is a generator; decorate it with contextlib.contextmanager"
    return None


_USABLE: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "function": (callable, "a function is called with a context"),
    "handler": (
        lambda value: (
            callable(value) or any(hasattr(value, name) for name in ("process_batch", "make"))
        ),
        "a handler is a Handler, a class of handlers, or a function",
    ),
    "input adapter": (
        lambda value: (
            inspect.isasyncgenfunction(value) or inspect.isasyncgenfunction(type(value).__call__)
        ),
        "an adapter is an async generator function",
    ),
}
"""Test of the values of each kind, and its rule in words."""


def fault_of_registration(kind: str, name: object, value: object) -> str | None:
    """Return why a plugin cannot register this value under this name, or None."""
    if not isinstance(name, str) or not name.strip():
        return f"the name of its {kind} is {name!r}; a name is a string that is not empty"
    is_usable, rule = _USABLE[kind]
    return None if is_usable(value) else f"it registers {value!r} as {kind} {name!r}; {rule}"


def _did_you_mean(hook: str) -> str:
    close = difflib.get_close_matches(hook, HOOKS, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def missing_part(opened: object, protocol: type) -> str | None:
    """Return the first part of a protocol that an object lacks, or None if it has all parts."""
    if isinstance(opened, type):
        return f"an instance: it is the class {opened.__qualname__} itself"
    for name in _parts(protocol):
        expected, given = getattr(protocol, name, None), getattr(opened, name, None)
        if not callable(expected):
            # A store may set its attributes when it is entered, if its class declares them.
            if given is None and name not in _declared(type(opened)):
                return f"the attribute {name!r}"
        elif not callable(given):
            return f"the method {name!r}"
        elif (parameter := _missing_parameter(expected, given)) is not None:
            return f"the argument {parameter!r} of {name!r}"
    for name in PARTS.keys() & _declared(protocol):
        part = getattr(opened, name, None)
        if part is not None and (missing := missing_part(part, PARTS[name])) is not None:
            return f"{missing} of its {name}"
    return None


def _parts(protocol: type) -> list[str]:
    methods = [
        name
        for name, value in vars(protocol).items()
        if inspect.isfunction(value) and name != "__init__"
    ]
    return [
        *get_type_hints(protocol),
        *(
            name
            for name in methods
            if not name.startswith("_") or name in ("__aenter__", "__aexit__")
        ),
    ]


def _declared(cls: type) -> set[str]:
    return {name for base in cls.__mro__ for name in getattr(base, "__annotations__", {})}


def _missing_parameter(expected: Any, given: Any) -> str | None:
    """Return a keyword argument of the protocol's method that the given one does not accept."""
    try:
        parameters = inspect.signature(given).parameters
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    wanted = [
        p.name for p in inspect.signature(expected).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    return next((name for name in wanted if name not in parameters), None)
