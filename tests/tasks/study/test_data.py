"""The fingerprints of a plan: those that the runs' results will have, each source looked at once."""

from dataclasses import replace

import numpy as np
from PIL import Image

from vision_transfer.data.load import load_dataset
from vision_transfer.runs.build import data_request
from vision_transfer.tasks.study import data as data_module
from vision_transfer.tasks.study.data import with_fingerprints
from vision_transfer.tasks.study.plan import Study


def write_picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)).save(path)


def test_a_plan_has_the_fingerprint_of_its_data_whatever_the_subset(study, tmp_path, screen, monkeypatch):
    for number in range(30):
        write_picture(tmp_path / "pictures" / ("cat" if number % 2 else "dog") / f"{number}.png", number)
    root, runs = str(tmp_path / "pictures"), []
    for number, run in enumerate(study.runs):
        dataset = replace(run.config.dataset, root=root, train_examples=(None, 10, 20)[number], subset_seed=number)
        runs.append(replace(run, config=replace(run.config, dataset=dataset)))
    study = replace(study, runs=tuple(runs))
    looked = []
    look = data_module.data_fingerprint
    monkeypatch.setattr(
        data_module, "data_fingerprint", lambda *given, **named: looked.append(0) or look(*given, **named)
    )
    planned = with_fingerprints(study, tmp_path / "cache", screen)
    assert isinstance(planned, Study)
    loaded = load_dataset(data_request(study.runs[1].config), cache_dir=tmp_path / "cache", screen=screen)
    assert {run.data for run in planned.runs} == {loaded.fingerprint}
    assert len(looked) == 1
    write_picture(tmp_path / "pictures" / "cat" / "1.png", 99)
    assert with_fingerprints(study, tmp_path / "cache", screen).runs[0].data != loaded.fingerprint
