"""The task `train`: from a config to a finished run folder, stage by stage."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh
from rich.markup import escape

from vision_transfer import freezing
from vision_transfer.augment.variants import Augmentation, BankRows
from vision_transfer.clock import Clock
from vision_transfer.config import Config, validate
from vision_transfer.data.dataset import Split
from vision_transfer.data.fetch import PUBLIC_FILES, fetch_dataset
from vision_transfer.data.find import find_source
from vision_transfer.devices import local_mesh, padded_batch
from vision_transfer.errors import UserError
from vision_transfer.evaluation import TestResult, evaluate_test
from vision_transfer.features import FeatureRows, Prefix, concatenated, features
from vision_transfer.files import write_json
from vision_transfer.inference import Rows, infer
from vision_transfer.models.layers import layer_names
from vision_transfer.models.network import Network, Params
from vision_transfer.models.prepared import prepared_kernels
from vision_transfer.narration import say_result, say_setup, say_stage, say_summary
from vision_transfer.resolve import (
    DataFacts,
    Stage,
    build_augmentation,
    build_network,
    data_request,
    resolve_stages,
    stage_plan,
    uses_published_weights,
)
from vision_transfer.result import build_result
from vision_transfer.run_folder import RunFolder, claimed, default_folder
from vision_transfer.screen import Screen
from vision_transfer.setup import RunOptions, Setup, initial_variables, load_weights, prepare
from vision_transfer.train.feeding import TrainingRows
from vision_transfer.train.loop import train_stage
from vision_transfer.train.stage import StageData, StageOutcome, Watch, with_weights


def train(config: Config, options: RunOptions, screen: Screen) -> RunFolder:
    """Runs a config to its end, or finds its finished run; returns the run's folder.

    Raises:
        UserError: a config, data, weights or folder that cannot be used.
        Stopped: asked to stop; the same command goes on from there.
    """
    clock = Clock()
    with clock.measures("data"):
        setup = prepare(config, options.cache_dir, screen)
    folder = (
        default_folder(config.name, setup.identity.digest) if options.workdir is None else RunFolder(options.workdir)
    )
    with claimed(folder, setup.identity):
        _check_unchanged(setup, folder, options)
        result = folder.result()
        if result is None:
            write_json(folder.config_file, setup.config.to_dict())
            write_json(folder.identity_file, asdict(setup.identity))
            say_setup(setup, folder, screen)
            say_result(setup, folder, _run(_Run(setup, folder, options, screen, clock, local_mesh())), screen)
        else:
            _say_finished(setup, folder, result, screen)
    return folder


def summarise(config: Config, cache_dir: Path, screen: Screen) -> None:
    """Prints the network with what trains in each stage; decodes and trains nothing."""
    validate(config)
    request = data_request(config)
    source = find_source(request, cache_dir, screen)
    size = request.image_size or source.default_size
    network = build_network(config, DataFacts(len(source.classes), (size, size, request.channels)))
    say_summary(config, source.name, len(source.classes), network, resolve_stages(config, network), screen)


def fetch(config: Config, cache_dir: Path, screen: Screen) -> None:
    """Fetches the weights and the public data set that the config names, so that a later run needs no network."""
    validate(config)
    if uses_published_weights(config):
        weights = load_weights(config, cache_dir, screen)
        screen.say(f"{weights.source}\nsha256 {weights.sha256}\n{weights.licence}")
    if config.dataset.name in PUBLIC_FILES:
        screen.say(f"{config.dataset.name} is in {fetch_dataset(config.dataset.name, cache_dir, screen)}.")
    else:
        screen.say(
            f"dataset.name={config.dataset.name}: no download; these have one: {', '.join(sorted(PUBLIC_FILES))}."
        )


def _say_finished(setup: Setup, folder: RunFolder, result: dict[str, Any], screen: Screen) -> None:
    """The result of a run that was finished before.

    Raises:
        UserError: `result.json` is of another run, or not as it was written.
    """
    mend = "remove it, and the same command makes it again from the checkpoints"
    if result.get("digest") != setup.identity.digest:
        raise UserError(
            f"{folder.result_file}: is the result of another run (digest {result.get('digest')}, this one is "
            f"{setup.identity.digest}); {mend}"
        )
    screen.say(escape(f"This run is finished; its result is in {folder.path}. --rerun does it again."))
    try:
        say_result(setup, folder, result, screen)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.result_file}: is not as it was written ({error!r}); {mend}") from error


@dataclass(frozen=True)
class _Run:
    """A run under way."""

    setup: Setup
    folder: RunFolder
    options: RunOptions
    screen: Screen
    clock: Clock
    mesh: Mesh


def _check_unchanged(setup: Setup, folder: RunFolder, options: RunOptions) -> None:
    """Clears the folder for `--rerun`; refuses to mix what other code, versions or devices computed.

    Raises:
        UserError: the folder's run was computed by something else, and neither `--rerun` nor `--reuse` was given.
    """
    recorded = folder.identity()
    if recorded is None:
        return
    if options.rerun:
        folder.clear()
        return
    differences = setup.identity.differences(recorded)
    if differences and folder.has_trained() and not options.reuse:
        state = "finished" if folder.result() else "begun"
        raise UserError(
            f"{folder.path}: this run was {state} under other conditions, so its numbers may differ from today's:\n  "
            + "\n  ".join(differences)
            + "\n--rerun does it again from the start; --reuse takes it as it is"
        )


def _run(run: _Run) -> dict[str, Any]:
    """All stages, the test, and `result.json`."""
    setup = run.setup
    variables = initial_variables(setup.network, setup.config.seed, setup.weights)
    outcomes: list[StageOutcome] = []
    for position, stage in enumerate(setup.stages):
        if outcomes:
            variables = with_weights(variables, outcomes[-1], stage.start_from)
        with run.clock.measures("train"):
            outcomes.append(_run_stage(run, position, variables, outcomes))
    # Again for all stages: a process killed between a last checkpoint and its record left one out.
    run.folder.write_metrics([record for outcome in outcomes for record in outcome.progress.history])
    variables = with_weights(variables, outcomes[-1], setup.config.evaluate)
    with run.clock.measures("evaluate"):
        test = _test(run, variables)
    result = build_result(setup, outcomes, test, run.clock)
    write_json(run.folder.result_file, result)
    return result


def _run_stage(run: _Run, position: int, variables: dict[str, Params], earlier: list[StageOutcome]) -> StageOutcome:
    setup, stage = run.setup, run.setup.stages[position]
    plan = stage_plan(setup.config, stage, setup.network, len(setup.dataset.train))
    trainable, frozen = freezing.partition(variables["params"], stage.mask)
    say_stage(stage, plan, freezing.counts(variables["params"], stage.mask), run.screen)
    finished = [record for outcome in earlier for record in outcome.progress.history]
    return train_stage(
        plan,
        trainable,
        _frozen_collections(run, stage, frozen),
        variables["batch_stats"],
        lambda: _stage_data(run, position, variables),
        run.mesh,
        run.folder.checkpoints(stage.name),
        Watch(
            run.screen,
            record=lambda history: run.folder.write_metrics([*finished, *history]),
            stop=run.options.stop,
        ),
    )


def _stage_data(run: _Run, position: int, variables: dict[str, Params]) -> StageData:
    dataset, stage = run.setup.dataset, run.setup.stages[position]
    with run.clock.measures("features"):
        _compute_for_later_stages(run, position, variables)
        train = _training_rows(run, stage, variables)
        validation = _inputs(run, stage, variables, dataset.validation)
    return StageData(train, validation, dataset.validation.labels)


def _training_rows(run: _Run, stage: Stage, variables: dict[str, Params]) -> TrainingRows:
    split, augmentation = run.setup.dataset.train, build_augmentation(run.setup.config)
    if stage.cached is None or augmentation is None:
        return TrainingRows(_inputs(run, stage, variables, split), split.labels, split.example_ids)
    layer, bank = stage.cached, augmentation.bank
    variants = [_bank_features(run, layer, variables, augmentation, variant) for variant in range(bank)]
    return TrainingRows(
        concatenated(variants), np.tile(split.labels, bank), np.tile(split.example_ids, bank), variants=bank
    )


def _bank_features(
    run: _Run, layer: str, variables: dict[str, Params], augmentation: Augmentation, variant: int
) -> FeatureRows:
    split = run.setup.dataset.train
    prefix = replace(_prefix(run, variables), augmentation=augmentation, variant=variant)
    images = BankRows(split.images, split.example_ids, augmentation, variant)
    return features(prefix, layer, images, split.digests, run.screen)


def _compute_for_later_stages(run: _Run, position: int, variables: dict[str, Params]) -> None:
    """Features of the shallower layers that later stages start from, so that this stage's are computed from them.

    They lie inside this stage's frozen prefix, so they are those that the later stages will ask for, unless a stage
    between trains them.
    """
    now, index = run.setup.stages[position], run.setup.network.index
    if now.cached is None:
        return
    later = [(index(stage.cached), stage) for stage in run.setup.stages[position + 1 :] if stage.cached is not None]
    for depth, stage in sorted(later, key=lambda pair: pair[0]):
        if depth < index(now.cached):
            _training_rows(run, stage, variables)
            _inputs(run, stage, variables, run.setup.dataset.validation)


def _inputs(run: _Run, stage: Stage, variables: dict[str, Params], split: Split) -> Rows:
    if stage.cached is None:
        return split.images
    return features(_prefix(run, variables), stage.cached, split.images, split.digests, run.screen)


def _prefix(run: _Run, variables: dict[str, Params]) -> Prefix:
    return Prefix(run.setup.network, variables, run.mesh, run.setup.config.eval_batch_size, run.options.cache_dir)


def _test(run: _Run, variables: dict[str, Params]) -> TestResult:
    """The only place where the test split is looked at, once, with the final parameters."""
    setup, stage, split = run.setup, run.setup.stages[-1], run.setup.dataset.test
    with run.clock.measures("features"):
        inputs = _inputs(run, stage, variables, split)
    logits = infer(
        setup.network,
        variables,
        inputs,
        run.mesh,
        batch_size=setup.config.eval_batch_size,
        start=stage.start,
    )
    run.folder.write_predictions(logits, split.labels, split.files)
    return evaluate_test(logits, split.labels)


def _frozen_collections(run: _Run, stage: Stage, frozen: Params) -> dict[str, Params]:
    """What a step needs of the frozen parameters: those of the layers that run in it, and their prepared kernels."""
    setup = run.setup
    batch = padded_batch(setup.config.batch_size, run.mesh) // run.mesh.size
    return {
        "params": _from_layer(setup.network, frozen, stage.start),
        "prepared": prepared_kernels(setup.network, frozen, batch=batch, start=stage.start),
    }


def _from_layer(network: Network, params: Params, start: str | None) -> Params:
    names = layer_names(network.layers)[0 if start is None else network.index(start) :]
    return {layer: leaves for layer, leaves in params.items() if layer in names}
