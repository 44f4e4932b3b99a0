"""What averaging adds to finished runs that differ in their seeds: over views of an image, over seeds, over weights.

    python docs/studies/squeeze.py RUN RUN RUN [--against RUN RUN RUN]

Each row is compared with the runs as they are, image by image: the gain is the mean over images of the difference in
the share of seeds that are right, with a 95 % interval from the standard error of that mean. All are of the test split;
nothing is chosen here. `--against` compares with runs of another config on the same images instead.
"""

# pyright: basic

import argparse

import jax
import numpy as np
from scipy.stats import norm

from vision_transfer.data.load import load_dataset
from vision_transfer.metrics.classification import class_log_probabilities
from vision_transfer.models.inference import infer
from vision_transfer.predict.run import Run
from vision_transfer.predict.views import views_of
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runtime import jax_setup
from vision_transfer.runtime.cache_folder import cache_folder
from vision_transfer.runtime.console import Screen
from vision_transfer.runtime.devices import local_mesh


def main(arguments: list[str] | None = None) -> None:
    """Prints a table in Markdown."""
    parser = argparse.ArgumentParser()
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--against", nargs="+", default=[])
    given = parser.parse_args(arguments)
    jax_setup.configure(cache_folder(), deterministic=False)
    runs, others = [Run(run) for run in given.runs], [Run(run) for run in given.against]
    labels, once = saved(runs)
    base = right(once, labels)
    rows = [against(others, labels)] if others else averages(runs, once)
    print(f"| {len(labels):,} test images | accuracy | gain, points | passes |\n| --- | ---: | ---: | ---: |")
    print(f"| as they are | {base.mean():.3f} | | 1 |")
    for name, found, passes in rows:
        gains = 100 * (right(found, labels).mean(axis=0) - base.mean(axis=0))
        half = norm.ppf(0.975) * gains.std(ddof=1) / np.sqrt(len(gains))
        interval = f"{gains.mean():+.1f} ({gains.mean() - half:+.1f} to {gains.mean() + half:+.1f})"
        print(f"| {name} | {right(found, labels).mean():.3f} | {interval} | {passes} |")


def averages(runs: list[Run], once: np.ndarray) -> list[tuple[str, np.ndarray, int]]:
    """Name, logits or probabilities `(runs, images, classes)`, and passes over the network, of each way to average."""
    config, count = runs[0].config, len(runs)
    images = load_dataset(config.dataset, cache_dir=cache_folder(), screen=Screen().silent()).test.images
    seen = {
        view: np.stack([forward(run, run.variables, view(images)) for run in runs]) for view in views_of("flip,shifts")
    }
    flip, shifts = (np.mean([seen[view] for view in views_of(name)], axis=0) for name in ("flip", "shifts"))
    both = np.mean([*seen.values()], axis=0)
    soup = jax.tree.map(lambda *leaves: np.mean(leaves, axis=0), *(run.variables for run in runs))
    return [
        ("flip", flip, 2),
        ("shifts", shifts, 3),
        ("flip,shifts", both, 4),
        (f"probabilities of {count} seeds", once.mean(axis=0)[None], count),
        (f"weights of {count} seeds", forward(runs[0], soup, images)[None], 1),
        (f"probabilities of {count} seeds, flip,shifts", np.exp(both).mean(axis=0)[None], 4 * count),
    ]


def against(others: list[Run], labels: np.ndarray) -> tuple[str, np.ndarray, int]:
    """The one row of runs of another config."""
    same, found = saved(others)
    if not np.array_equal(same, labels):
        raise SystemExit(f"{others[0].path}: its test images are others")
    return others[0].path.name, found, 1


def saved(runs: list[Run]) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the test images, and probabilities `(runs, images, classes)`, as each run kept them."""
    kept = [read_predictions(run.path / "predictions.npz").test for run in runs]
    return kept[0][1], np.stack([np.exp(class_log_probabilities(logits)) for logits, _ in kept])


def forward(run: Run, variables: dict, images: np.ndarray) -> np.ndarray:
    """Log probabilities `(images, classes)` of the run's network with these variables."""
    logits = infer(run.network, variables, images, local_mesh(), batch_size=run.config.eval_batch_size)
    return class_log_probabilities(logits)


def right(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each run is right on each image, `(runs, images)`."""
    return probabilities.argmax(axis=-1) == labels


if __name__ == "__main__":
    main()
