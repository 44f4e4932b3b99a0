"""Freezing while training, against masks that stay: accuracy, and CPU seconds of each epoch of the stage `tune`.

    python docs/studies/freeze_while_training.py OUT dataset.root=FOLDER stages.tune.epochs=6

OUT gets a run's folder for each way and seed, and `rows.jsonl`; what follows are fields of `recommended`. A way is a
freeze spec or a rule, which after each epoch freezes the stages of the backbone that have settled, from the first up to
one that has not. Their output is then computed once; the optimizer keeps its moments.

- gradients: the norm of a stage's gradient (of Adam's first moment, a mean over about ten steps) changed since the
  epoch before by a smaller share than the median of the stages (AutoFreeze, Liu et al. 2021, arXiv:2102.01386).
- outputs: the similarities between a stage's outputs for 64 training images changed since the epoch before by less than
  a fifth of their largest change (after Egeria, Wang et al. 2023, arXiv:2201.06227, which has another reference).
"""

import argparse
import ast
import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from vision_transfer.feature_cache.cacheable import cached_layer
from vision_transfer.freezing import cut, merge, partition, resolve
from vision_transfer.models.inference import infer
from vision_transfer.models.layers import layers_of, stage_of
from vision_transfer.runtime.devices import replicate
from vision_transfer.tasks.train import task
from vision_transfer.tasks.train.from_python import train
from vision_transfer.training import loop as stage_loop
from vision_transfer.training.dispatch import Pace
from vision_transfer.training.stage import StageOutcome, Weights, step_program
from vision_transfer.training.step import initial_state

PROBE_IMAGES = 64
SETTLED_SHARE = 0.2
RULES = ("gradients", "outputs")


def main(arguments: list[str] | None = None) -> None:
    """Trains each way with each seed, in turns, and writes a row after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("fields", nargs="+")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--ways", default="none,gradients,outputs")
    given = parser.parse_args(arguments)
    given.out.mkdir(parents=True, exist_ok=True)
    fields = {name: value_of(text) for name, _, text in (field.partition("=") for field in given.fields)}
    for seed in map(int, given.seeds.split(",")):
        for way in given.ways.split(","):
            epochs: list[dict[str, Any]] = []
            task.train_stage = partial(train_stage, way, epochs)
            own = {"seed": seed, "stages.tune.freeze": "none" if way in RULES else way, "evaluate": "best"}
            try:
                run = train("recommended", fields | own, workdir=given.out / f"{way.replace(':', '_')}-{seed}")
            finally:
                task.train_stage = stage_loop.train_stage
            row = {"way": way, "seed": seed, "validation": run.result["tested"]["validation"], "epochs": epochs}
            with (given.out / "rows.jsonl").open("a") as file:
                file.write(json.dumps(row | {"test": run.result["test"]["accuracy"]}) + "\n")


def value_of(text: str) -> Any:
    """A number or None, or else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def train_stage(way: str, epochs: list, config, network, stage, variables, given, mesh, around) -> StageOutcome:
    """`vision_transfer.training.loop.train_stage` with a rule, which may move the cut after each epoch."""
    began, record_epochs = time.process_time(), around.record

    def record(history: Any) -> None:
        nonlocal began
        record_epochs(history)
        if stage.name == "tune":
            epochs.append({"cut": stage.cut, "seconds": time.process_time() - began})
        began = time.process_time()

    around = replace(around, record=record)
    if stage.name != "tune" or way not in RULES:
        return stage_loop.train_stage(config, network, stage, variables, given, mesh, around)
    data, params, past, now = given(), variables["params"], [], {}
    state, best, progress = stage_loop._last_checkpoint(config, network, stage, variables, around.checkpoints)
    loop, progress = stage_loop._make_loop(config, network, stage, variables, data, mesh, around, progress)
    state, kept, pace = replicate(state, mesh), best, Pace(config.checkpoint.every_seconds)
    names = list(dict.fromkeys(stage_of(row) for row in network.backbone if params_of_rows([row], params)))
    while not progress.finished:
        state, progress = stage_loop._train_epoch(loop, state, best, progress, pace)
        state, best, progress = stage_loop._close_epoch(loop, state, best, progress, pace)
        params = merge(params, jax.device_get(state.trainable))
        variables = {"params": params, "batch_stats": jax.device_get(state.batch_stats)}
        if progress.best_epoch == progress.epoch:
            kept = Weights(params, variables["batch_stats"])
        around.record(progress.history)
        before, now = now, measured(way, network, names, variables, data, stage, state, mesh)
        if before:
            past.append({name: change(before[name], now[name]) for name in names})
        settled = settled_stages(way, names, past)
        if settled and not progress.finished:
            names = names[settled:]
            stage, data = moved(network, names[0], variables, data, stage, mesh)
            trainable, _ = partition(params, stage.mask)
            best = Weights(trainable, variables["batch_stats"])
            template = initial_state(step_program(config, network, stage), *best)
            leaves = dict(jax.tree_util.tree_leaves_with_path(jax.device_get(state)))
            state = replicate(jax.tree_util.tree_map_with_path(lambda path, _, of=leaves: of[path], template), mesh)
            loop, progress = stage_loop._make_loop(config, network, stage, variables, data, mesh, around, progress)
        epochs[-1]["rule_and_move"], began = time.process_time() - began, time.process_time()
    return StageOutcome(kept, Weights(params, variables["batch_stats"]), progress)


def measured(way: str, network, names, variables, data, stage, state, mesh) -> dict[str, np.ndarray]:
    """What a rule compares between two epochs, for each stage that trains."""
    rows = {name: [row for row in network.backbone if stage_of(row) == name] for name in names}
    if way == "gradients":
        moments = state.optimizer[0].first
        return {name: np.asarray(optax.tree.norm(params_of_rows(rows[name], moments))) for name in names}
    found, outputs, start = {}, data.train.inputs[np.arange(PROBE_IMAGES)], stage.start
    for name in names:
        stop = rows[name][-1].name
        outputs = infer(network, variables, outputs, mesh, batch_size=PROBE_IMAGES // 2, start=start, stop=stop)
        start, flat = network.after(stop), outputs.reshape(PROBE_IMAGES, -1)
        found[name] = flat @ flat.T / np.linalg.norm(flat @ flat.T, axis=1, keepdims=True)
    return found


def change(before: np.ndarray, now: np.ndarray) -> float:
    """The relative change of a norm, or the mean squared change of similarities."""
    return float(abs(now - before) / before) if before.ndim == 0 else float(np.mean((now - before) ** 2))


def settled_stages(way: str, names: list[str], past: list[dict[str, float]]) -> int:
    """How many of the stages that train have settled, from the first on; at least one goes on."""
    if not past:
        return 0
    changes = np.array([[epoch[name] for name in names] for epoch in past])
    now = changes[-1]
    limits = np.full_like(now, np.median(now)) if way == "gradients" else SETTLED_SHARE * changes.max(axis=0)
    return min([*(now < limits).tolist(), False].index(False), len(names) - 1)


def moved(network, name: str, variables, data, stage, mesh):
    """The stage with its cut before the stage `name` of the backbone, and its data: what is frozen now has been run."""
    mask = resolve(f"below:{name}", network)
    cached = cached_layer(network, mask)
    start = None if cached is None else network.after(cached)
    deeper = replace(stage, mask=mask, cut=cut(network, mask), cached=cached, evaluation_start=start)
    if cached == stage.cached:
        return deeper, data
    computed = partial(infer, network, variables, mesh=mesh, batch_size=32, start=stage.start, stop=cached)
    train = replace(data.train, inputs=computed(data.train.inputs))
    return deeper, replace(data, train=train, validation_inputs=computed(data.validation_inputs))


def params_of_rows(rows, params) -> dict[str, Any]:
    """The parameters of rows."""
    return {layer.name: params[layer.name] for layer in layers_of(rows) if layer.name in params}


if __name__ == "__main__":
    main()
