"""The example that trains models and publishes the best one."""

import json
from pathlib import Path
from typing import Any

from examples.ml_training.flow import TRAININGS, training
from examples.ml_training.handlers import HANDLERS, train_linear_model
from examples.ml_training.models import accuracy, ring
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster


async def trained(params: dict[str, Any], **handlers: Any) -> Any:
    async with Cluster() as cluster:
        view = await cluster.run(training, handlers={**HANDLERS, **handlers}, params=params)
    assert view.status == "finished", view.error
    return view


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_the_published_model_is_the_one_that_predicts_best(tmp_path: Path):
    output = tmp_path / "model.json"

    view = await trained({"output": str(output)})

    test_points = ring(400, 4)[300:]
    found = {name: accuracy(view.nodes[f"train_{name}"].result, test_points) for name in TRAININGS}
    best = max(found, key=found.__getitem__)
    assert view.result == {"publish": view.nodes["publish"].result}
    assert view.nodes["publish"].result["published"] == best
    assert accuracy(json.loads(output.read_text()), test_points) == found[best] >= 0.9
    assert view.nodes["report"].status == "skipped"
    assert names_in(tmp_path) == [output.name]


async def test_no_model_is_published_if_none_is_good_enough(tmp_path: Path):
    output = tmp_path / "model.json"

    view = await trained({"output": str(output), "required": 0.99})

    assert view.nodes["publish"].reason_code == "condition_false"
    assert list(view.result) == ["report"]
    assert not output.exists()


async def test_a_training_that_diverges_is_tried_again_with_a_lower_rate(tmp_path: Path):
    view = await trained({"output": str(tmp_path / "model.json")})

    assert {name: view.nodes[f"train_{name}"].attempt for name in TRAININGS} == {
        "centroids": 1,
        "linear": 1,
        "quadratic": 2,
        "tree": 1,
    }


async def test_a_training_that_breaks_off_continues_from_its_last_reported_round(tmp_path: Path):
    continued: list[int] = []

    @handler("train_linear")
    async def breaks_off(item: Any, ctx: RunContext) -> Any:
        if ctx.node_id == "train_linear" and ctx.attempt == 1:
            await train_linear_model(item | {"rounds": 3}, ctx)
            raise ConnectionError("gone")
        if ctx.node_id == "train_linear":
            continued.append(ctx.progress["done"])
        return await train_linear_model(item, ctx)

    view = await trained({"output": str(tmp_path / "model.json")}, train_linear=breaks_off)

    assert continued == [3]
    assert view.nodes["train_linear"].progress["done"] == TRAININGS["linear"][1]["rounds"]
