"""The changes that coordinator functions make to vars."""

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit._engine.vars import VarsOp, apply, check
from flowkit.errors import NodeFailure, VarsError


def set_(kv: Any, **more: Any) -> VarsOp:
    return VarsOp("set", {"kv": kv, **more})


def merge(data: Any, **more: Any) -> VarsOp:
    return VarsOp("merge", {"data": data, **more})


def incr(key: Any, by: Any = 1) -> VarsOp:
    return VarsOp("incr", {"key": key, "by": by})


def unset(keys: Any) -> VarsOp:
    return VarsOp("unset", {"keys": keys})


def nested(path: str, value: Any) -> Any:
    for segment in reversed(path.split(".")):
        value = {segment: value}
    return value


# ---------------------------------------------------------------- operations


@pytest.mark.parametrize(
    ("before", "op", "after"),
    [
        ({}, set_({"a": 1}), {"a": 1}),
        ({}, set_({"a.b.c": 1, "a.d": None}), {"a": {"b": {"c": 1}, "d": None}}),
        ({"a": {"x": 1}}, set_({"a.b": 2}), {"a": {"x": 1, "b": 2}}),
        ({"a": {"x": 1}}, set_({"a": {"b": 2}}), {"a": {"b": 2}}),
        ({"a": {"x": 1}}, set_({"a": 5}), {"a": 5}),
        ({"a": {"x": 1}}, set_({"a": {}}), {"a": {}}),
        ({"a": 1}, set_({}), {"a": 1}),
        ({"a": {"x": 1}}, merge({"a": {"b": 2}}), {"a": {"x": 1, "b": 2}}),
        ({"a": {"x": 1}}, merge({"a.b": {"c.d": 2}}), {"a": {"x": 1, "b": {"c": {"d": 2}}}}),
        ({"a": {"x": [1]}}, merge({"a": {"x": [2]}}), {"a": {"x": [2]}}),
        ({"a": {"x": 1}}, merge({"a": None}), {"a": None}),
        ({"a": {"x": 1}}, merge({"a": {}}), {"a": {"x": 1}}),
        ({"a": 3}, merge({"a": {}}), {"a": {}}),
        ({"a": 3}, merge({"a": {"b": 1}}), {"a": {"b": 1}}),
        ({"a": 3}, merge({"a.b": 1}), {"a": {"b": 1}}),
        ({}, incr("a"), {"a": 1}),
        ({"a": {"n": 2}}, incr("a.n", -5), {"a": {"n": -3}}),
        ({"n": 1}, incr("n", 0.5), {"n": 1.5}),
        ({}, VarsOp("incr", {"key": "n"}), {"n": 1}),
        ({"a": {"b": {"c": 1}}}, unset("a.b.c"), {}),
        ({"a": {"b": {"c": 1}, "d": 2}}, unset(["a.b.c"]), {"a": {"d": 2}}),
        ({"a": {"b": 1, "c": 2}}, unset(["a.b", "a.c", "a.b"]), {}),
        ({"a": {"b": 1}}, unset(["a", "a.b"]), {}),
        ({"a": 1, "e": {}}, unset(["b", "a.b", "e.x"]), {"a": 1, "e": {}}),
        ({"a": 1}, unset([]), {"a": 1}),
    ],
)
def test_an_operation_changes_what_it_names_and_nothing_else(before: Any, op: VarsOp, after: Any):
    kept = copy.deepcopy(before)

    assert apply(before, [op]) == after
    assert before == kept


def test_operations_are_applied_in_order():
    ops = [
        set_({"a.b": 1}),
        incr("a.b", 2),
        merge({"a": {"c": 1}}),
        unset("a.c"),
        set_({"d": {"e": 1}}),
        incr("d.e"),
    ]

    assert apply({}, ops) == {"a": {"b": 3}, "d": {"e": 2}}
    assert ops[4].args == {"kv": {"d": {"e": 1}}}


def test_what_did_not_change_is_shared():
    before = {"a": {"x": {"deep": 1}, "y": {"deep": 2}}, "b": {"z": 1}}

    after = apply(before, [set_({"a.x.deep": 5})])

    assert after["b"] is before["b"]
    assert after["a"]["y"] is before["a"]["y"]
    assert after["a"]["x"] is not before["a"]["x"]


def test_an_object_that_stands_at_two_places_is_changed_at_one():
    shared = {"n": 1}

    assert apply({"a": shared, "b": shared}, [incr("a.n")]) == {"a": {"n": 2}, "b": {"n": 1}}


# ---------------------------------------------------------------- limits, at their edges

DEEP = ".".join("abcdefghijklmnop")
LONG = ".".join(["x" * 102] * 4 + ["x" * 100])
KIB_64 = 64 * 1024


def lists(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "op",
    [
        set_({f"k{n}": n for n in range(256)}),
        set_({"a": {f"k{n}": n for n in range(255)}, "b": {}}),
        set_({"a": list(range(1000))}),
        merge({"a": {f"k{n}": n for n in range(256)}}),
        unset([f"k{n}" for n in range(256)]),
        *(
            make(DEEP)
            for make in (
                lambda p: set_({p: 1}),
                lambda p: set_(nested(p, 1)),
                lambda p: merge({p: 1}),
                incr,
                unset,
            )
        ),
        *(
            make(LONG)
            for make in (
                lambda p: set_({p: 1}),
                lambda p: set_(nested(p, 1)),
                lambda p: merge({p: 1}),
                incr,
                unset,
            )
        ),
        *(
            make("x" * 128)
            for make in (lambda p: set_({p: 1}), lambda p: set_({"a": {p: 1}}), incr, unset)
        ),
        set_({"a": "x" * KIB_64}),
        set_({"a": "é" * (KIB_64 // 2)}),
        set_({"a": {"b": "x" * KIB_64, "c": "x" * KIB_64}}),
        set_({"a": ["x" * (KIB_64 - 4)]}),
        set_({"a": lists(16)}),
        set_({"a": [{"$odd": 1, "with.dot": 2, "": 3}]}),
        set_({"a$": 1, "ключ": 1, " ": 1}),
        set_({"a": 10**4000}),
        set_({"a": "\0"}),
        merge({"a.b": 1, "a.c": 1, "ab": 1, "a": {"d": 1}}),
    ],
)
def test_what_is_just_within_a_limit_is_taken(op: VarsOp):
    check(op)
    apply({}, [op])


@pytest.mark.parametrize(
    ("op", "complaint"),
    [
        (set_({f"k{n}": n for n in range(257)}), "more than 256 keys"),
        (set_({"a": {f"k{n}": n for n in range(256)}, "b": {}}), "more than 256 keys"),
        (merge({"a": {f"k{n}": n for n in range(257)}}), "more than 256 keys"),
        (unset([f"k{n}" for n in range(257)]), "more than 256 keys"),
        *(
            (make(DEEP + ".q"), "16 segments")
            for make in (
                lambda p: set_({p: 1}),
                lambda p: set_(nested(p, 1)),
                lambda p: merge({p: 1}),
            )
        ),
        *((make(DEEP + ".q"), "16 segments") for make in (incr, unset)),
        *(
            (make(LONG + "x"), "512 characters")
            for make in (lambda p: set_({p: 1}), lambda p: set_(nested(p, 1)), incr, unset)
        ),
        *(
            (make("x" * 129), "128 characters")
            for make in (lambda p: set_({p: 1}), lambda p: set_({"a": {p: 1}}), incr, unset)
        ),
        *(
            (make("a..b"), "is empty")
            for make in (lambda p: set_({p: 1}), lambda p: merge({p: 1}), incr, unset)
        ),
        *(
            (make(""), "is empty")
            for make in (lambda p: set_({p: 1}), lambda p: set_({"a": {p: 1}}), incr, unset)
        ),
        *(
            (make("a.$b"), r"begins with '\$'")
            for make in (lambda p: set_({p: 1}), lambda p: set_({"c": {"$b": 1}}), incr, unset)
        ),
        *(
            (make("a\0b"), "NUL")
            for make in (lambda p: set_({p: 1}), lambda p: set_({"c": {p: 1}}), incr, unset)
        ),
        *(
            (make("a\ud800"), "Unicode")
            for make in (lambda p: set_({p: 1}), lambda p: set_({"c": {p: 1}}), incr, unset)
        ),
        (set_({"a": {"b.c": 1}}), "'a.b.c' has a segment that has a dot in it"),
        (set_({"a": "x" * (KIB_64 + 1)}), "'a' has 65537 bytes"),
        (set_({"a": "é" * (KIB_64 // 2) + "x"}), "'a' has 65537 bytes"),
        (set_({"a": {"b": ["x" * (KIB_64 - 3)]}}), "'a.b' has 65537 bytes"),
        (merge({"a.b": "x" * (KIB_64 + 1)}), "'a.b' has 65537 bytes"),
        (set_({"a": lists(17)}), "more than 16 levels"),
        (set_({"a": math.nan}), "'a' is not a finite number"),
        (set_({"a": {"b": -math.inf}}), "'a.b' is not a finite number"),
        (merge({"a": [1, {"b": [math.inf]}]}), "'a' is not a finite number"),
        (set_({"a": {1, 2}}), "'a' is a set, which JSON does not have"),
        (set_({"a": [(1, 2)]}), "'a' is a tuple"),
        (set_({"a": b"x"}), "'a' is a bytes"),
        (set_({"a": [{1: 2}]}), "a key in it that is not a text"),
        (set_({"a": "\ud800"}), "'a' cannot be written"),
        (set_({"a": ["\udfff"]}), "'a' cannot be written"),
        (set_({"a": 10**5000}), "'a' cannot be written"),
        (set_({1: 1}), "a key is a text, not a number"),
        (set_({"a": {None: 1}}), "a key in 'a' is a text, not nothing"),
        (set_([("a", 1)]), "kv is an object of keys and values, not a list"),
        (merge("a"), "data is an object of keys and values, not a text"),
        (VarsOp("set", {}), "kv is an object"),
        (set_({"a": 1}, block_sensitive="yes"), "block_sensitive is true or false"),
        (set_({"a": 1, "a.b": 2}), "'a' and 'a.b' are both given"),
        (set_({"a": {"b": 1}, "a.c": 2}), "'a' and 'a.c' are both given"),
        (merge({"a.b": 1, "a": {"b": 2}}), "'a.b' and 'a.b' are both given"),
        (merge({"a": 1, "a-b": 1, "a.b.c": 2}), "'a' and 'a.b.c' are both given"),
        (unset({"a": 1}), "keys is a key or a list of keys, not an object"),
        (unset([1]), "a key is a text, not a number"),
        (incr(None), "key must be a text, not nothing"),
        (incr("n", True), "by, for 'n', must be a finite number, not true or false"),
        (incr("n", "1"), "must be a finite number, not a text"),
        (incr("n", None), "must be a finite number, not nothing"),
        (incr("n", math.nan), "must be a finite number, not one that is not finite"),
        (incr("n", math.inf), "must be a finite number, not one that is not finite"),
        (incr("n", 10**5000), "must be a finite number, not a number"),
        (VarsOp("rename", {}), "no operation 'rename'"),  # type: ignore[arg-type]
    ],
)
def test_what_is_just_beyond_a_limit_is_refused(op: VarsOp, complaint: str):
    with pytest.raises(VarsError, match=complaint):
        check(op)
    with pytest.raises(VarsError, match=complaint):
        apply({}, [op])


def test_values_that_contain_themselves_are_refused():
    endless_list: list[Any] = []
    endless_list.append(endless_list)
    endless_dict: dict[str, Any] = {}
    endless_dict["a"] = endless_dict

    for value in (endless_list, endless_dict, [endless_dict]):
        for op in (set_({"a": value}), merge({"a": value})):
            with pytest.raises(VarsError):
                check(op)


@pytest.mark.parametrize(
    ("before", "op", "complaint"),
    [
        (
            {"a": 1},
            set_({"a.b": 2}),
            "vars.set: 'a.b' has no place: 'a' holds a number, not an object",
        ),
        ({"a": {"b": [1]}}, set_({"a.b.c.d": 2}), "'a.b' holds a list"),
        ({"a": None}, set_({"a.b": 2}), "'a' holds nothing"),
        ({"a": "x"}, incr("a.b"), "vars.incr: 'a.b' has no place: 'a' holds a text"),
        ({"n": "1"}, incr("n"), "'n' holds a text, not a finite number"),
        ({"n": True}, incr("n"), "'n' holds true or false"),
        ({"n": None}, incr("n"), "'n' holds nothing"),
        ({"n": {"m": 1}}, incr("n"), "'n' holds an object"),
        ({"n": math.nan}, incr("n"), "'n' holds one that is not finite"),
        ({"n": 1.7e308}, incr("n", 1.7e308), "the sum for 'n' is too large"),
        ({"n": 10**400}, incr("n", 0.5), "the sum for 'n' is too large"),
        ({"n": 10**4300 - 1}, incr("n", 1), "the sum for 'n' is too large"),
    ],
)
def test_what_does_not_fit_the_vars_is_refused(before: Any, op: VarsOp, complaint: str):
    check(op)
    with pytest.raises(VarsError, match=complaint):
        apply(before, [op])


def test_a_refusal_is_a_permanent_failure_of_the_node():
    with pytest.raises(NodeFailure) as caught:
        check(set_({"": 1}))

    assert (caught.value.reason_code, caught.value.permanent) == ("bad_input", True)


def test_a_long_key_is_cut_in_the_error():
    with pytest.raises(VarsError) as caught:
        check(set_({"x" * 100_000: 1}))

    assert len(str(caught.value)) < 250


@pytest.mark.parametrize(
    "op",
    [
        set_({"a": {"SECRET-TEXT"}}),
        set_({"a": ["SECRET-TEXT" * 10_000]}),
        set_({"a": "SECRET-TEXT\ud800"}),
        set_([("a", "SECRET-TEXT")]),
        merge({"a": 1, "a.b": "SECRET-TEXT"}),
        set_({"a": 1}, block_sensitive="SECRET-TEXT"),
        incr("n", "SECRET-TEXT"),
        set_({"password": "SECRET-TEXT-4711"}, block_sensitive=True),
    ],
)
def test_an_error_never_shows_a_value(op: VarsOp):
    with pytest.raises(VarsError) as caught:
        check(op)

    assert "SECRET-TEXT" not in str(caught.value)
    assert "SECRET-TEXT" not in repr(caught.value)


# ---------------------------------------------------------------- properties

segments = st.text("abcé -1", min_size=1, max_size=2)
paths = st.lists(segments, min_size=1, max_size=4).map(".".join)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab$.\0é", max_size=5)
)
trees = st.recursive(
    scalars | st.lists(scalars, max_size=3),
    lambda inner: st.dictionaries(segments, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(segments, trees, max_size=4)
operations = st.one_of(
    st.builds(set_, st.dictionaries(paths, trees, max_size=3)),
    st.builds(merge, objects | st.dictionaries(paths, trees, max_size=3)),
    st.builds(incr, paths, st.integers() | st.floats()),
    st.builds(unset, st.lists(paths, max_size=3)),
)


@given(objects, st.lists(operations, max_size=5))
def test_neither_the_vars_nor_the_operations_are_ever_changed(before: Any, ops: list[VarsOp]):
    written = json.dumps([before, [op.args for op in ops]])

    try:
        after = apply(before, ops)
    except VarsError:
        pass
    else:
        assert after is not before
        json.dumps(after, allow_nan=False)
    assert json.dumps([before, [op.args for op in ops]]) == written


@given(objects, paths, trees)
def test_what_is_set_and_then_unset_leaves_no_trace(before: Any, path: str, value: Any):
    first = path.split(".")[0]
    before.pop(first, None)

    assert apply(before, [set_({path: value}), unset(path)]) == before


@given(objects, paths, scalars)
def test_nested_and_dotted_keys_mean_the_same(before: Any, path: str, value: Any):
    before.pop(path.split(".")[0], None)

    assert apply(before, [set_({path: value})]) == apply(before, [set_(nested(path, value))])


@given(objects, paths, trees)
def test_nested_and_dotted_keys_merge_alike(before: Any, path: str, value: Any):
    assert apply(before, [merge({path: value})]) == apply(before, [merge(nested(path, value))])


@given(objects, objects)
def test_merging_twice_changes_nothing_more(before: Any, data: Any):
    once = apply(before, [merge(data)])

    assert apply(once, [merge(data)]) == once


@given(objects, st.lists(operations, max_size=4))
def test_operations_are_applied_all_or_none(before: Any, ops: list[VarsOp]):
    with pytest.raises(VarsError):
        apply(before, [*ops, set_({"": 1})])


@given(objects, st.lists(operations, max_size=5))
def test_operations_can_be_applied_together_or_one_by_one(before: Any, ops: list[VarsOp]):
    try:
        together = apply(before, ops)
    except VarsError:
        return
    for op in ops:
        before = apply(before, [op])
    assert together == before
