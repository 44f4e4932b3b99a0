"""Messages of a run: the network's summary, the first screen, each stage before it starts, and the closing table."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.table import Table

from vision_transfer import freezing
from vision_transfer.config import Config
from vision_transfer.data.batches import steps_of_epoch
from vision_transfer.data.dataset import Dataset
from vision_transfer.models.layers import stage_of, stage_starts
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.summary import summary_table
from vision_transfer.runs.prepare import Run
from vision_transfer.runtime.console import Screen, duration
from vision_transfer.training.stage import Stage

# Files that could not be used are all in result.json; the screen shows the first of them.
SKIPPED_SHOWN = 5
# From this ratio of the largest class to the smallest, accuracy alone tells little about the smallest.
UNBALANCED_RATIO = 1.5


def say_summary(
    config: Config, data_name: str, classes: int, network: Network, stages: list[Stage], screen: Screen
) -> None:
    """The network layer by layer, and what trains in each stage: parameters and, in brackets, tensors."""
    title = f"{config.model.backbone} for {data_name}, {classes} classes"
    screen.say(summary_table(network, {stage.name: stage.mask for stage in stages}, title))
    if not stages:  # as of a sweep, whose runs have stages of their own
        return
    rows = [
        ((stage.name, stage.settings.freeze), stage.mask, stage.cached if stage.trains_from_cache else None)
        for stage in stages
    ]
    screen.say(trains_table(network, ("Stage", "Frozen by"), rows))
    for stage in stages:
        _say_split_block(network, stage, screen)


def trains_table(
    network: Network, names: Sequence[str], rows: Iterable[tuple[Sequence[str], freezing.Mask, str | None]]
) -> Table:
    """The parameters (tensors) that each mask trains and freezes, and the cached layer that training starts from.

    A row has its names, the mask, and that layer or None.
    """
    table = Table(*names, box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("Trainable", "Frozen"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("Starts from", no_wrap=True)
    for cells, mask, cached in rows:
        numbers = freezing.counts(all_parameter_shapes(network), mask)
        trainable = f"{numbers.trainable:,} ({numbers.trainable_tensors})"
        table.add_row(*cells, trainable, f"{numbers.frozen:,} ({numbers.frozen_tensors})", cached or "the images")
    return table


def say_run(run: Run) -> None:
    """The first screen: data, network, weights, device, and the run's folder."""
    dataset, network, config, screen = run.dataset, run.network, run.config, run.screen
    height, width, channels = network.input_shape
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    sizes = f"{len(dataset.train):,} train, {len(dataset.validation):,} validation, {len(dataset.test):,} test"
    table.add_row("Data", f"{dataset.name}: {len(dataset.classes)} classes of {height}×{width}×{channels} images")
    table.add_row("", sizes)
    if dataset.note:
        table.add_row("", dataset.note)
    kind = "one sigmoid" if network.outputs == 1 else f"softmax over {network.outputs}"
    grid = config.model.pooling_grid
    head = config.model.head or config.model.pooling + (f" of {grid}×{grid} cells" if grid > 1 else "")
    table.add_row("Network", f"{config.model.backbone}, {head}, {kind}; {network.preprocessing} input")
    weights = run.weights
    table.add_row("Weights", "random initialisation" if weights is None else f"{weights.source}; {weights.licence}")
    table.add_row("Stages", " → ".join(f"{stage.name} (frozen: {stage.settings.freeze})" for stage in run.stages))
    table.add_row("Device", f"{run.identity.device}, {config.precision}")
    table.add_row("Run folder", str(run.folder.path))
    screen.say(table)
    say_doubts(dataset, screen)


def say_doubts(dataset: Dataset, screen: Screen) -> None:
    """Says what is probably a mistake in the data or makes its metrics uncertain, and which files were left out."""
    for warning in dataset.warnings:
        screen.say(f"note: {warning}", style="yellow")
    for skipped in dataset.skipped[:SKIPPED_SHOWN]:
        screen.say(f"left out: {skipped.file}: {skipped.reason}", style="yellow")
    if len(dataset.skipped) > SKIPPED_SHOWN:
        screen.say(
            f"left out: {len(dataset.skipped) - SKIPPED_SHOWN} more files; result.json lists them", style="yellow"
        )


def say_stage(run: Run, stage: Stage) -> None:
    """The length of a stage, the layer that its steps start from, and what is trainable and frozen."""
    screen, settings = run.screen, stage.settings
    counts = freezing.counts(all_parameter_shapes(run.network), stage.mask)
    steps = steps_of_epoch(settings, len(run.dataset.train), run.config.batch_size)
    start = f"cached {stage.cached}" if stage.trains_from_cache else "the images"
    if stage.cached and not stage.trains_from_cache:
        start += f", validation from cached {stage.cached}"
    screen.say()
    length = f"{_number_of(settings.epochs, 'epoch')} of {_number_of(steps, 'step')}"
    screen.say(f"Stage {stage.name}: {length}, from {start}", style="bold")
    screen.say(
        f"  trainable {counts.trainable_tensors} tensors, {counts.trainable:,} parameters; "
        f"frozen {counts.frozen_tensors} tensors, {counts.frozen:,} parameters"
    )
    _say_split_block(run.network, stage, screen)
    screen.say("  after each epoch: loss and accuracy of training and of validation", style="dim")


def say_end_of_schedule(run: Run, stage: Stage) -> None:
    """Says why a stage and those after it are not trained."""
    run.screen.say(
        f"Stage {stage.name}: not needed, since validation accuracy is at least {stage.settings.skip_from} already "
        f"(config.stages.{stage.name}.skip_from)",
        style="bold",
    )


def _say_split_block(network: Network, stage: Stage, screen: Screen) -> None:
    """Says where a freeze spec ends inside a block, since its frozen layers then run again in every step."""
    split = freezing.split_block(network, stage.mask)
    if split is not None:
        block, frozen = split
        screen.say(
            f"  {stage.name}: {stage.settings.freeze} splits the block {block}: {', '.join(frozen)} "
            f"{'is' if len(frozen) == 1 else 'are'} frozen, but computed in every step. The nearest borders are "
            f"below:{block} and below:{network.after(block)}.",
            style="yellow",
        )


def say_result(run: Run, result: dict[str, Any]) -> None:
    """The closing table: each stage's validation, the test with its interval, the files, and flags to try next."""
    folder, screen = run.folder, run.screen
    table = Table(title=f"{run.config.name} on {run.dataset.name}", title_justify="left")
    for column in ("", "Trainable", "Epoch", "Loss", "Accuracy", "Time"):
        table.add_column(column, justify="left" if not column else "right")
    for stage in result["stages"]:
        table.add_row(
            f"{stage['name']}, validation",
            f"{stage['parameters']['trainable']:,}",
            f"{stage['best_epoch']} of {stage['epochs']}",
            _four_decimals(stage["validation"]["loss"]),
            _four_decimals(stage["validation"]["accuracy"]),
            duration(stage["seconds"]),
        )
    test = result["test"]
    low, high = test["accuracy_ci95"]
    table.add_section()
    table.add_row(
        f"{'out of fold' if 'folds' in test else 'test'}, {test['examples']:,} images",
        "",
        "",
        f"{test['loss']:.4f}",
        f"{test['accuracy']:.4f}",
        "",
        style="bold",
    )
    screen.say()
    screen.say(table)
    if "folds" in test:
        screen.say(
            f"Expected accuracy {test['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f}: that of the runs of "
            f"{test['folds']} folds on images that they did not see; this run has no test split of its own."
        )
    else:
        screen.say(f"Test accuracy {test['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson).")
    tested, last = result["tested"], result["stages"][-1]["name"]
    if tested["stage"] != last:
        screen.say(
            f"Tested stage {tested['stage']}, epoch {tested['epoch']}; stage {last} did not improve on it in "
            "validation."
        )
    unbalanced = _balanced_line(test)
    if unbalanced:
        screen.say(unbalanced)
    files = [folder.result_file, folder.metrics_file, folder.predictions_file]
    files += [folder.report_file] if folder.report_file.exists() else []
    screen.say(f"Results in {folder.path}: {', '.join(file.name for file in files)}, checkpoints/")
    screen.say("Next, try adding one of these flags:")
    found = suggestions(run)
    width = max(len(flag) for flag, _ in found)
    for flag, meaning in found:
        screen.say(f"  {flag:<{width}}  {meaning}")


def _balanced_line(test: dict[str, Any]) -> str:
    """Balanced accuracy and lowest recall, where the test's classes are of unequal size; otherwise empty."""
    classes = [one for one in test.get("per_class", []) if one["recall"] is not None]
    support = [one["support"] for one in classes]
    if not support or max(support) < UNBALANCED_RATIO * min(support):
        return ""
    worst = min(classes, key=lambda one: one["recall"])
    return (
        f"Classes of {min(support):,} to {max(support):,} test images: balanced accuracy "
        f"{test['balanced_accuracy']:.4f}; lowest recall {worst['recall']:.4f}, of {worst['class']}."
    )


def _four_decimals(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _number_of(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def suggestions(run: Run) -> list[tuple[str, str]]:
    """Flags to add to the same command, each with its purpose."""
    config, last = run.config, run.stages[-1]
    found = [(f"--config.seed={config.seed + 1}", "another seed: one run is not a result")]
    if config.task == "classic_classifier":
        other = "svm" if config.classifier.kind != "svm" else "logistic_regression"
        found.append((f"--config.classifier.kind={other}", "the other classifier, on the same features"))
    elif (deeper := _deeper(run.network, last)) is not None:
        found.append((f"--config.stages.{last.name}.freeze={deeper}", "another depth"))
    found.append(("--mode=summary", "the network, and what is trainable"))
    if config.dataset.name == "auto" and config.dataset.root is None:
        found.insert(0, ("--config.dataset.root=FOLDER", "your own images, in class folders"))
    return found


def _deeper(network: Network, stage: Stage) -> str | None:
    """The freeze spec that trains one block more than a stage does; None where everything trains already."""
    cut = network.index(stage.cut)
    frozen = network.backbone[:cut]
    starts = stage_starts(row for row in frozen if stage_of(row) != stage_of(network.rows[cut]))
    if len(starts) > 1:
        return f"below:{starts[-1]}"
    return "none" if frozen else None
