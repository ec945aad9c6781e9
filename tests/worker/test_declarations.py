"""A handler that cannot work is refused at its declaration, and the error names that place."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flowkit.errors import ConfigError
from flowkit.worker import Batch, BatchResult, Handler, Worker, handler, per_run
from tests.worker.bench import Bench

HERE = Path(__file__).name


def a_class() -> None:
    @handler("x")
    class Work:
        def __call__(self, item: Any) -> None: ...


def a_handler_class() -> None:
    @handler("x")
    class Work(Handler):
        async def process_batch(self, batch: Any, ctx: Any) -> Any: ...


def an_annotation_that_is_not_there() -> None:
    @handler("x")
    async def work(item: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


def an_annotation_that_cannot_be_validated() -> None:
    class Odd:
        pass

    class Model(BaseModel):
        pass

    @handler("x")
    async def work(item: dict[Odd, Model]) -> None: ...


def one_of_several_annotations_that_cannot_be_validated() -> None:
    class Odd:
        pass

    @handler("x")
    async def work(item: int, odd: Odd) -> None: ...


def a_result_that_is_not_there() -> None:
    @handler("x")
    async def work(item: int) -> "Nowhere": ...  # type: ignore[name-defined]  # noqa: F821


def a_synchronous_process_batch() -> None:
    class Work(Handler):
        def process_batch(self, batch: Any, ctx: Any) -> Any: ...  # type: ignore[override]


def a_process_batch_that_yields() -> None:
    class Work(Handler):
        async def process_batch(self, batch: Any, ctx: Any) -> Any:  # type: ignore[override]
            yield batch


def a_process_batch_without_context() -> None:
    class Work(Handler):
        async def process_batch(self, batch: Any) -> Any: ...  # type: ignore[override]


def a_synchronous_load_input() -> None:
    class Work(Handler):
        def load_input(self, input_ref: Any, input_inline: Any) -> Any: ...  # type: ignore[override]


def a_load_input_of_one_argument() -> None:
    class Work(Handler):
        async def load_input(self, item: Any) -> Any: ...  # type: ignore[override]


def a_synchronous_init() -> None:
    class Work(Handler):
        def init(self, run_info: Any) -> None: ...  # type: ignore[override]


def a_synchronous_finalize() -> None:
    class Work(Handler):
        def finalize(self, ctx: Any) -> Any: ...  # type: ignore[override]


def an_iter_batches_without_argument() -> None:
    class Work(Handler):
        async def iter_batches(self) -> Any: ...  # type: ignore[override]


def a_classify_error_without_argument() -> None:
    class Work(Handler):
        def classify_error(self) -> Any: ...  # type: ignore[override]


def a_synchronous_process_batch_of_another_base() -> None:
    class Mixin:
        def process_batch(self, batch: Any, ctx: Any) -> Any: ...

    class Work(Mixin, Handler):  # type: ignore[misc]
        pass


def a_class_without_process_batch() -> None:
    class Work(Handler):
        async def finalize(self, ctx: Any) -> None: ...

    Worker(db="memory://", handlers={"x": Work})


def an_instance_without_process_batch() -> None:
    class Work(Handler):
        pass

    Worker(db="memory://", handlers={"x": Work()})


def a_class_made_per_run_without_process_batch() -> None:
    class Work(Handler):
        pass

    Worker(db="memory://", handlers={"x": per_run(Work)})


class Sized(Handler):
    async def process_batch(self, batch: Any, ctx: Any) -> Any: ...


def a_class_that_is_made_with_arguments() -> None:
    class Work(Sized):
        def __init__(self, size: int) -> None:
            self.size = size

    Worker(db="memory://", handlers={"x": Work})


def a_dataclass_that_is_made_with_arguments() -> None:
    @dataclass
    class Work(Sized):
        size: int

    Worker(db="memory://", handlers={"x": Work})


def an_abstract_class() -> None:
    class Work(Sized, ABC):
        @abstractmethod
        def table(self) -> str: ...

    Worker(db="memory://", handlers={"x": Work})


def a_factory_with_arguments() -> None:
    def make(size: int) -> Handler: ...  # type: ignore[empty-body]

    per_run(make)  # type: ignore[arg-type]


def a_method() -> None:
    class Work:
        @handler("x")
        async def work(self, item: Any) -> None: ...


def a_class_that_is_no_handler() -> None:
    class Work:
        def run(self) -> None: ...

    Worker(db="memory://", handlers={"x": Work})


def an_asynchronous_classify_error() -> None:
    class Work(Handler):
        async def classify_error(self, exc: Any) -> Any: ...  # type: ignore[override]


WRONG = {
    a_class: "it is a class; give it to the worker under its role",
    a_handler_class: "it is a class; give it to the worker under its role",
    an_annotation_that_is_not_there: "the annotation 'Nowhere' of 'item' cannot be resolved",
    an_annotation_that_cannot_be_validated: "pydantic cannot validate",
    one_of_several_annotations_that_cannot_be_validated: "pydantic cannot validate",
    a_result_that_is_not_there: "the annotation 'Nowhere' of its result cannot be resolved",
    a_synchronous_process_batch: "process_batch is awaited; write it with 'async def'",
    a_process_batch_that_yields: "process_batch yields; let it return a value",
    a_process_batch_without_context: (
        "process_batch is called with (batch, ctx) and does not accept these arguments"
    ),
    a_synchronous_load_input: "load_input is awaited; write it with 'async def'",
    a_load_input_of_one_argument: (
        "load_input is called with (input_ref, input_inline) and does not accept these arguments"
    ),
    a_synchronous_init: "init is awaited; write it with 'async def'",
    a_synchronous_finalize: "finalize is awaited; write it with 'async def'",
    an_iter_batches_without_argument: (
        "iter_batches is called with (loaded) and does not accept these arguments"
    ),
    a_classify_error_without_argument: (
        "classify_error is called with (exc) and does not accept these arguments"
    ),
    a_synchronous_process_batch_of_another_base: (
        "process_batch is awaited; write it with 'async def'"
    ),
    a_class_without_process_batch: "Work cannot be a handler: it has no process_batch",
    an_instance_without_process_batch: "Work cannot be a handler: it has no process_batch",
    a_class_made_per_run_without_process_batch: "Work cannot be a handler: it has no process_batch",
    a_class_that_is_made_with_arguments: (
        "missing a required argument: 'size'; give an instance, or per_run(lambda: Work(...))"
    ),
    a_dataclass_that_is_made_with_arguments: (
        "missing a required argument: 'size'; give an instance, or per_run(lambda: Work(...))"
    ),
    an_abstract_class: "it has abstract methods: table",
    a_factory_with_arguments: (
        "missing a required argument: 'size'; give per_run a function without parameters"
    ),
    a_method: (
        "it is a method, and would be called without self; use a plain function or a Handler class"
    ),
    a_class_that_is_no_handler: "the value for role 'x' is not a handler",
    an_asynchronous_classify_error: "classify_error is not awaited; write it with 'def'",
}


@pytest.mark.parametrize(
    "role", ["coordinator_fn", "sleep", "wait_signal", "approval", "subflow", "loop"]
)
def test_a_role_with_the_name_of_a_built_in_type_is_refused(bench: Bench, role: str) -> None:
    fault = f"{role!r} is a built-in type of nodes, which no worker runs; choose another name"

    async def work(item: Any) -> None: ...

    with pytest.raises(ConfigError, match=f"^work cannot be a handler: {fault}.*{HERE}, line "):
        handler(role)(work)
    with pytest.raises(ConfigError, match=f"^handlers: {fault}"):
        bench.worker({role: work})


@pytest.mark.parametrize(
    ("declare", "fault"), WRONG.items(), ids=[declare.__name__ for declare in WRONG]
)
def test_a_wrong_declaration_is_an_error_that_names_its_place(
    declare: Callable[[], None], fault: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        declare()
    text = str(caught.value)
    assert fault in text
    first = declare.__code__.co_firstlineno
    line = int(text.rpartition("line ")[2].rstrip(")"))
    assert HERE in text
    assert first < line <= first + 12


def logged(function: Any) -> Any:
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def test_declarations_that_work_are_accepted() -> None:
    class Base(Handler):
        @logged
        async def process_batch(self, batch: Batch, ctx: Any, *more: Any) -> BatchResult:
            return BatchResult(True)

        def iter_batches(self, loaded: Any) -> Any:
            return [Batch("a")]

        async def finalize(self, ctx: Any, *, extra: int = 1) -> None: ...

    class Derived(Base):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            yield Batch("b")

        process_batch = Base.process_batch

    class Untouched(Derived):
        name = "x"

    assert Untouched().name == "x"


def test_a_class_whose_source_is_not_known_is_refused_all_the_same() -> None:
    made: dict[str, Any] = {}
    exec("from flowkit.worker import Handler\nclass Work(Handler):\n    pass", made)
    with pytest.raises(ConfigError, match="Work cannot be a handler: it has no process_batch"):
        Worker(db="memory://", handlers={"x": made["Work"]})


async def test_what_per_run_makes_is_checked_in_each_run(bench: Bench) -> None:
    class Unfinished(Handler):
        pass

    made: list[Any] = [Unfinished(), "no handler"]
    async with bench.worker({"work": per_run(lambda: made.pop(0))}):
        assert "it has no process_batch" in (await bench.run()).error
        assert (
            "the value that per_run made for role 'work' is not a handler: 'no handler'"
            in (await bench.run()).error
        )


@pytest.mark.parametrize("value", [None, Sized()])
def test_per_run_takes_what_can_be_called(value: Any) -> None:
    with pytest.raises(ConfigError, match="per_run takes a function that makes a handler"):
        per_run(value)
