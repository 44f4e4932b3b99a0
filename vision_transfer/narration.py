"""What a run says: the first screen, each stage before it starts, and the closing table."""

from typing import Any

from rich.table import Table

from vision_transfer.freezing import Counts
from vision_transfer.resolve import Stage
from vision_transfer.run_folder import RunFolder
from vision_transfer.screen import Screen, duration
from vision_transfer.setup import Setup
from vision_transfer.train.loop import StagePlan

# Files that could not be used are all in result.json; the screen shows the first of them.
SKIPPED_SHOWN = 5


def say_setup(setup: Setup, folder: RunFolder, screen: Screen) -> None:
    """The first screen: data, network, weights, device, and where the run goes."""
    dataset, network, config = setup.dataset, setup.network, setup.config
    height, width, channels = network.input_shape
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    sizes = f"{len(dataset.train):,} train, {len(dataset.validation):,} validation, {len(dataset.test):,} test"
    table.add_row("Data", f"{dataset.name}: {len(dataset.classes)} classes; {sizes}; {height}×{width}×{channels}")
    if dataset.note:
        table.add_row("", dataset.note)
    kind = "one sigmoid" if network.outputs == 1 else f"softmax over {network.outputs}"
    table.add_row("Network", f"{config.model.backbone}, {config.model.pooling}, {kind}; {network.preprocessing} input")
    table.add_row("Weights", "random" if setup.weights is None else f"{setup.weights.source}; {setup.weights.licence}")
    table.add_row("Stages", " → ".join(f"{stage.name} (frozen: {stage.freeze})" for stage in setup.stages))
    table.add_row("Device", f"{setup.identity.device}, {config.precision}")
    table.add_row("Run folder", str(folder.path))
    screen.say(table)
    for skipped in dataset.skipped[:SKIPPED_SHOWN]:
        screen.say(f"left out: {skipped.file}: {skipped.reason}", style="yellow")
    if len(dataset.skipped) > SKIPPED_SHOWN:
        screen.say(
            f"left out: {len(dataset.skipped) - SKIPPED_SHOWN} more files; result.json lists them", style="yellow"
        )


def say_stage(stage: Stage, plan: StagePlan, counts: Counts, screen: Screen) -> None:
    """What trains in a stage and what is frozen, and where its steps start."""
    start = f"cached {stage.cached}" if stage.cached else "the images"
    screen.say()
    screen.say(f"Stage {stage.name}: {plan.epochs} epochs of {plan.steps_per_epoch} steps, from {start}", style="bold")
    screen.say(
        f"  trainable {counts.trainable_tensors} tensors, {counts.trainable:,} parameters; "
        f"frozen {counts.frozen_tensors} tensors, {counts.frozen:,} parameters"
    )


def say_result(setup: Setup, folder: RunFolder, result: dict[str, Any], screen: Screen) -> None:
    """The closing table: each stage's validation, the test with its interval, where things are, what to try next."""
    table = Table(title=f"{setup.config.name} on {setup.dataset.name}", title_justify="left")
    for column in ("", "Trainable", "Epoch", "Loss", "Accuracy", "Time"):
        table.add_column(column, justify="left" if not column else "right")
    for stage in result["stages"]:
        table.add_row(
            f"{stage['name']}, validation",
            f"{stage['parameters']['trainable']:,}",
            f"{stage['best_epoch']} of {stage['epochs']}",
            _figure(stage["validation"]["loss"]),
            _figure(stage["validation"]["accuracy"]),
            duration(stage["seconds"]),
        )
    test = result["test"]
    low, high = test["accuracy_ci95"]
    table.add_section()
    table.add_row(
        f"test, {test['examples']:,} images", "", "", f"{test['loss']:.4f}", f"{test['accuracy']:.4f}", "", style="bold"
    )
    screen.say()
    screen.say(table)
    screen.say(f"Test accuracy {test['accuracy']:.4f}, 95 % interval {low:.4f} to {high:.4f} (Wilson).")
    screen.say(
        f"Results: {folder.result_file}, {folder.metrics_file.name}, {folder.predictions_file.name}, checkpoints/"
    )
    screen.say("Try next:")
    for suggestion in _suggestions(setup):
        screen.say(f"  {suggestion}")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _suggestions(setup: Setup) -> list[str]:
    config = setup.config
    last = setup.stages[-1].name
    suggestions = [
        "--config.seed=1                      another seed: one run is not a result",
        f"--config.stages.{last}.freeze=last:8  another depth; the cached features are shared",
        "--mode=summary                       the network, layer by layer, with what trains",
    ]
    if config.dataset.name == "auto" and config.dataset.root is None:
        suggestions.insert(
            0, "--config.dataset.root=FOLDER         your own pictures, in train/validation/test class folders"
        )
    return suggestions
