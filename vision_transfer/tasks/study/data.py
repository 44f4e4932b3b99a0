"""Which data a study's runs are planned on, so that a run on other data never counts as finished."""

from dataclasses import replace
from pathlib import Path

from vision_transfer.data.dataset import DataRequest
from vision_transfer.data.load import data_fingerprint
from vision_transfer.runs.build import data_request
from vision_transfer.runtime.console import Screen
from vision_transfer.tasks.study.plan import Study


def with_fingerprints(study: Study, cache_dir: Path, screen: Screen) -> Study:
    """The study with the fingerprint of each run's data as it is now; every source is looked at once.

    Raises:
        UserError: data that are not there or not usable.
    """
    known: dict[DataRequest, str] = {}
    runs = []
    for run in study.runs:
        # A subset has the fingerprint of the whole.
        request = replace(data_request(run.config), train_examples=None, subset_seed=0)
        if request not in known:
            known[request] = data_fingerprint(request, cache_dir=cache_dir, screen=screen)
        runs.append(replace(run, data=known[request]))
    return replace(study, runs=tuple(runs))
