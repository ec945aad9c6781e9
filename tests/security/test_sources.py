"""Calls that run foreign data as code: the sources of the packages contain none."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = sorted(path for package in Path().glob("flowkit-*/src") for path in package.rglob("*.py"))
NEVER_IMPORTED = frozenset(
    {
        "pickle",
        "cPickle",
        "_pickle",
        "dill",
        "cloudpickle",
        "marshal",
        "shelve",
        "jsonpickle",
        "joblib",
    }
)
NEVER_CALLED = frozenset(
    {"eval", "exec", "__import__", "unsafe_load", "full_load", "load_all", "unsafe_load_all"}
)
IMPORTS_BY_NAME = {
    # Named by an operator on the command line or in a configuration, never in data from the bus or
    # the store.
    "flowkit-core/src/flowkit/cli/_loader.py",
    "flowkit-kafka/src/flowkit_kafka/_config.py",
    # Named by the author of an adapter in its tests.
    "flowkit-testing/src/flowkit_testing/_conformance_jobs.py",
    # Modules of the package itself, imported on demand.
    "flowkit-kafka/src/flowkit_kafka/__init__.py",
    "flowkit-mongo/src/flowkit_mongo/__init__.py",
    "flowkit-sqlite/src/flowkit_sqlite/__init__.py",
    "flowkit-web/src/flowkit_web/__init__.py",
    # GridFS of the driver that the database belongs to, from a table of the package.
    "flowkit-mongo/src/flowkit_mongo/_drivers.py",
    "flowkit-testing/src/flowkit_testing/__init__.py",
}
EVALUATES = "flowkit-core/src/flowkit/worker/_functions.py"
"""Module that evaluates annotations written as text in the code of a handler."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield (
                function.attr
                if isinstance(function, ast.Attribute)
                else getattr(function, "id", ""),
                node,
            )


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_unpickles_evaluates_or_loads_unsafely(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not NEVER_IMPORTED.intersection(imports(tree))
    for name, call in calls(tree):
        if name in NEVER_CALLED and (name, str(path)) != ("eval", EVALUATES):
            # ``compile`` of regular expressions and conditions is safe; these names are the
            # built-ins and those of PyYAML.
            assert isinstance(call.func, ast.Attribute), f"{path}:{call.lineno} calls {name}"
            assert not isinstance(call.func.value, ast.Name) or call.func.value.id not in (
                "yaml",
                "builtins",
            ), f"{path}:{call.lineno}"
        if (
            name == "load"
            and isinstance(call.func, ast.Attribute)
            and getattr(call.func.value, "id", "") == "yaml"
        ):
            loader = next(
                (
                    ast.unparse(keyword.value)
                    for keyword in call.keywords
                    if keyword.arg == "Loader"
                ),
                "",
            )
            assert loader == "_loader(base, yaml)", (
                f"{path}:{call.lineno} loads YAML with {loader or 'the default loader'}"
            )
        if name in ("run", "Popen", "call", "check_output", "create_subprocess_shell"):
            assert not any(keyword.arg == "shell" for keyword in call.keywords), (
                f"{path}:{call.lineno} uses a shell"
            )
            assert name != "create_subprocess_shell", f"{path}:{call.lineno} uses a shell"


def test_only_what_an_operator_names_is_imported_by_name() -> None:
    importing = {
        str(path)
        for path in SOURCES
        if any(
            name in ("import_module", "spec_from_file_location", "run_path")
            for name, _ in calls(ast.parse(path.read_text(encoding="utf-8")))
        )
    }
    assert importing == IMPORTS_BY_NAME


def test_the_yaml_loader_is_a_safe_one() -> None:
    source = Path("flowkit-core/src/flowkit/_json/documents.py").read_text(encoding="utf-8")
    assert 'getattr(yaml, "CSafeLoader", yaml.SafeLoader)' in source
