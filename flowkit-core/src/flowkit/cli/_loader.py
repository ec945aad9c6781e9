"""Loader of flows and handlers from files and modules."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from flowkit._json.documents import SYNTAX_OF_SUFFIX, DocumentError, read_file
from flowkit.errors import ConfigError, FlowKitError, GraphError
from flowkit.flows import Flow, GraphFlow
from flowkit.graph import Graph
from flowkit.graph._control_types import role_fault
from flowkit.graph._nested_graphs import graphs_in
from flowkit.graph._parser import DEFAULT_LIMITS
from flowkit.graph._source_texts import read_text
from flowkit.plugins import Plugins
from flowkit.worker import Handler
from flowkit.worker._functions import FunctionHandler
from flowkit.worker._handlers import PerRun

DOCUMENTS = (".json", ".yaml", ".yml")
PACKAGE = Path(__file__).parents[1]
Built = tuple[Any, Mapping[str, Any]]
"""A graph, and the handlers that it calls."""


@dataclass(frozen=True, slots=True)
class LoadedFlow:
    """Valid graph with the handlers found in its file."""

    graph: Graph
    handlers: Mapping[str, Any] = field(default_factory=dict)

    @property
    def roles(self) -> Mapping[str, Sequence[str]]:
        """Roles that workers must serve, each with its nodes."""
        return self.graph.roles


def load_flow(source: str, plugins: Plugins) -> LoadedFlow:
    """Load a flow from a document, a Python file or a module.

    Raises:
        ConfigError: there is no flow at ``source``.
        GraphError: the graph is invalid; the note of the error names ``source``.
    """
    handlers: Mapping[str, Any] = {}
    path = Path(source)
    try:
        if path.suffix.lower() in DOCUMENTS:
            graph: Any = _read(path)
        else:
            module, attribute = _module_of(source)
            graph, called = _flow_in(module, attribute, source)
            handlers = {**called, **handlers_in(module, source)}
        return LoadedFlow(Graph.parse(graph, functions=plugins.functions), handlers)
    except GraphError as error:
        error.add_note(source)
        raise


def load_handlers(sources: Iterable[str]) -> dict[str, Any]:
    """Load the handlers named as ``module:attr``, by role.

    An attribute is a mapping of roles, a sequence of functions, or one function.

    Raises:
        ConfigError: a handler does not exist, or a role has two handlers.
    """
    _importable(Path.cwd())
    merged: dict[str, Any] = {}
    for source in sources:
        module, attribute = _module_of(source)
        found = (
            handlers_in(module, source)
            if attribute is None
            else _by_role(_attribute(module, attribute, source), source)
        )
        if not found:
            raise ConfigError(f"{source}: contains no handler")
        if twice := merged.keys() & found.keys():
            raise ConfigError(f"{source}: role {min(twice)!r} already has a handler")
        merged |= found
    return merged


def handlers_in(module: ModuleType, source: str) -> dict[str, Any]:
    """Return the ``handlers`` of a module, or its functions decorated with ``@handler``."""
    if hasattr(module, "handlers") and not isinstance(module.handlers, ModuleType):
        return _by_role(module.handlers, f"{source}: handlers")
    return _by_role(
        [value for value in vars(module).values() if isinstance(value, FunctionHandler)], source
    )


# ---------------------------------------------------------------- inside


def _read(path: Path) -> Any:
    try:
        data = read_file(path)
    except DocumentError as error:
        raise ConfigError(f"{path}: {error}") from None
    return read_text(data, DEFAULT_LIMITS, SYNTAX_OF_SUFFIX[path.suffix.lower()])


def _flow_in(module: ModuleType, attribute: str | None, source: str) -> Built:
    """Return the named flow of a module, or else the one that needs no name."""
    if attribute is not None:
        value = _attribute(module, attribute, source)
        if not _is_flow(value) and not isinstance(value, dict | str):
            raise ConfigError(
                f"{source}: {attribute} must be a @flow function or a graph, not"
                f" {type(value).__name__}"
            )
        return _built(value, source)
    flows = {name: value for name, value in vars(module).items() if _is_flow(value)}
    distinct = list({id(flow): flow for flow in flows.values()}.values())
    if len(distinct) == 1:
        return _built(distinct[0], source)
    if (chosen := _outermost(distinct, source)) is not None:
        return chosen
    if flows:
        raise ConfigError(
            f"{source}: contains several flows; choose one with {source}:NAME, where NAME is"
            f" {' or '.join(sorted(flows))}"
        )
    raise ConfigError(f"{source}: contains no @flow function and no Graph")


def _outermost(flows: Iterable[Any], source: str) -> Built | None:
    """Return the only flow that no other one runs in child tasks. Return None if there is no such
    flow, or if a flow has faults.
    """
    try:
        built = [_built(flow, source) for flow in flows]
        graphs = [Graph.parse(graph) for graph, _ in built]
    except (ConfigError, GraphError):
        return None
    inside = [graph for outer in graphs for graph in graphs_in(outer.plan.nodes)]
    outer = [
        each for each, graph in zip(built, graphs, strict=True) if graph.to_dict() not in inside
    ]
    return outer[0] if len(outer) == 1 else None


def _built(flow: Any, source: str) -> Built:
    """Return a flow as it was built. A @flow function is the user's code."""
    try:
        if isinstance(flow, Flow):
            return flow.build()
        return flow.build_graph() if isinstance(flow, GraphFlow) else flow, {}
    except (GraphError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _broken(source, error, "built") from error


def _is_flow(value: Any) -> bool:
    return isinstance(value, Flow | GraphFlow | Graph)


def _by_role(value: Any, source: str) -> dict[str, Any]:
    if isinstance(value, Mapping):
        for role, item in value.items():
            if not callable(item) and not isinstance(item, Handler | PerRun):
                raise ConfigError(
                    f"{source}: the value for role {role!r} is not a handler: {item!r:.200}"
                )
            if (fault := role_fault(role)) is not None:
                raise ConfigError(f"{source}: {fault}")
        return dict(value)
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    found: dict[str, Any] = {}
    for item in items:
        role = getattr(item, "role", None)
        if not isinstance(role, str) or not role:
            name = getattr(item, "__name__", type(item).__name__)
            raise ConfigError(
                f'{source}: {name} has no role; declare it with @handler("role"), or use a mapping'
                " of roles"
            )
        if not _is_same(found.setdefault(role, item), item):
            raise ConfigError(f"{source}: role {role!r} has two handlers")
    return found


def _is_same(one: Any, other: Any) -> bool:
    """Return whether two handlers are one, perhaps with other options for its nodes."""
    if isinstance(one, FunctionHandler) and isinstance(other, FunctionHandler):
        return one.function is other.function
    return one is other


def _attribute(module: ModuleType, attribute: str, source: str) -> Any:
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            raise ConfigError(
                f"{source}: {getattr(value, '__name__', attribute)} has no attribute {part!r}"
            )
        value = getattr(value, part)
    return value


def _module_of(source: str) -> tuple[ModuleType, str | None]:
    """Return the module of ``source`` and the name after its colon, or None."""
    place, colon, attribute = (
        source.rpartition(":") if not source.endswith(".py") else (source, "", "")
    )
    if not colon:
        place, attribute = source, ""
    if place.endswith(".py"):
        module = _import_file(Path(place))
    elif all(part.isidentifier() for part in place.split(".")) and not Path(place).is_file():
        _importable(Path.cwd())
        module = _import_module(place)
    else:
        raise ConfigError(
            f"{source}: expected a file ending in {', '.join(DOCUMENTS)} or .py, or module:attr"
        )
    return module, attribute or None


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"module {name!r} not found: it is neither installed nor in the current directory"
            ) from None
        raise _broken(name, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise _broken(name, error) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"{path}: file not found")
    path = path.resolve()
    # As with `python FILE`, modules in the same directory can be imported.
    _importable(path.parent)
    # Handlers look up their annotations in sys.modules, so the module is added there under a unique
    # name.
    name = path.stem if path.stem not in sys.modules else f"{path.stem}_{len(sys.modules)}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        del sys.modules[name]
        raise _broken(str(path), error) from error
    return module


def _broken(name: str, error: BaseException, doing: str = "imported") -> ConfigError:
    """Return an error that shows the last executed line of the user's code."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)
    ]
    # Before 3.11.4, Python raises ValueError for a file with a NUL.
    has_nul = isinstance(error, ValueError) and not frames and "null bytes" in str(error)
    if has_nul or (isinstance(error, SyntaxError) and error.filename is None):
        return ConfigError(
            f"{name} cannot be {doing}: not a UTF-8 Python file:"
            f" {getattr(error, 'msg', None) or error}"
        )
    if isinstance(error, SyntaxError):
        return ConfigError(
            f"{name} cannot be {doing}: {error.filename}, line {error.lineno}: {error.msg}"
        )
    what = (
        str(error)
        if isinstance(error, FlowKitError)
        else "".join(traceback.format_exception_only(error)).strip()
    )
    if not frames:
        return ConfigError(f"{name} cannot be {doing}: {what}")
    last = frames[-1]
    return ConfigError(
        f"{name} cannot be {doing}: {last.filename}, line {last.lineno}: {what}"
        + (f"\n    {last.line}" if last.line else "")
    )


def _is_ours(filename: str) -> bool:
    """Tell whether a frame belongs to FlowKit or to the import system."""
    return "importlib" in filename or Path(filename).is_relative_to(PACKAGE)
