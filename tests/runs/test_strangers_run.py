"""A run's folder from a stranger, consistent in itself: nothing of absurd size is made, and nothing outside is read."""

import json
import shutil
import zipfile

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.runs.load import load_run
from vision_transfer.runs.predictions import read_predictions
from vision_transfer.runtime.files import file_sha256, write_json
from vision_transfer.runtime.provenance import json_digest
from vision_transfer.tasks.evaluate import evaluate
from vision_transfer.tasks.explain.task import ExplainFlags, explain


@pytest.fixture
def stranger(finished_run, tmp_path, seal):
    """Makes a copy of a run in which a function changed the values of a JSON file, with digests that agree."""

    def make(file, change):
        copy = shutil.copytree(finished_run, tmp_path / "stranger")
        values = json.loads((copy / file).read_text())
        change(values)
        (copy / file).write_text(json.dumps(values))
        seal(copy)
        return copy

    return make


@pytest.mark.parametrize("size", [10**5, 10**12, 10**30])
def test_a_network_that_no_machine_holds(stranger, run_caches, screen, size):
    run = stranger("config.json", lambda config: config["dataset"].update(image_size=size))
    with pytest.raises(UserError, match=r"config\.json: (describes a network of .* this machine has|.*image_size)"):
        load_run(run, run_caches, screen)


@pytest.mark.parametrize(
    "stated",
    [{"shape": shape} for shape in ([2**33], [2**62, 2**62], [-1, 4], ["a"], "x", None)]
    + [{"chunks": chunks} for chunks in ([2**40], [0], [-1, -1], "x")]
    + [{"dtype": "|O"}, {"dtype": "<U1000000000"}],
    ids=str,
)
def test_an_array_of_another_shape(stranger, seal, run_caches, screen, stated):
    """The manifest of the checkpoint is the stranger's, too."""
    run = stranger("config.json", lambda config: None)
    (checkpoint,) = (run / "checkpoints/head/last").iterdir()
    array = next(file for file in sorted(checkpoint.rglob(".zarray")) if json.loads(file.read_text())["shape"])
    write_json(array, json.loads(array.read_text()) | stated)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    content = manifest["content"]
    content["sha256"][str(array.relative_to(checkpoint))] = file_sha256(array)
    write_json(checkpoint / "manifest.json", {"digest": json_digest(content), "content": content})
    seal(run)
    with pytest.raises(UserError, match=r"checkpoint .*(, expected |cannot be read)"):
        load_run(run, run_caches, screen)


@pytest.mark.parametrize("classes", [[], ["one"], ["a"] * 5, None, 3, {"a": 1}, [["a"], ["b"], ["c"]]])
def test_other_classes(stranger, run_caches, screen, classes):
    run = stranger("result.json", lambda result: result["dataset"].update(classes=classes))
    with pytest.raises(UserError):
        load_run(run, run_caches, screen)


@pytest.mark.parametrize(
    "metadata",
    [
        *(None, [], {}, {"epoch": "x"}, {"history": 3}, {"history": [], "finished": True, "speed": 3}),
        *({"epoch": epoch, "history": [{"epoch": 1}], "finished": True} for epoch in ("x", 7, 10**30, None)),
        {"epoch": 1, "history": [{}], "finished": True},
        {"epoch": 1, "best_epoch": 2, "history": [{"epoch": 1}], "finished": True},
    ],
    ids=str,
)
def test_metadata_of_another_kind(stranger, seal, run_caches, screen, metadata):
    run = stranger("config.json", lambda config: None)
    (checkpoint,) = (run / "checkpoints/head/last").iterdir()
    content = json.loads((checkpoint / "manifest.json").read_text())["content"] | {"metadata": metadata}
    write_json(checkpoint / "manifest.json", {"digest": json_digest(content), "content": content})
    seal(run)
    with pytest.raises(UserError):
        load_run(run, run_caches, screen)


def test_predictions_that_inflate(tmp_path):
    file = tmp_path / "predictions.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("logits.npy", "w") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (2**25, 2)})
        for _ in range(256):
            stream.write(bytes(2**20))
    with pytest.raises(UserError, match="inflate to more than"):
        read_predictions(file)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(tmp_path, bad):
    file = tmp_path / "predictions.npz"
    np.savez(file, logits=np.full((3, 2), bad, np.float32), labels=np.arange(3) % 2)
    with pytest.raises(UserError, match="not logits"):
        read_predictions(file)


@pytest.mark.parametrize("root", ["/proc", "/sys/../proc/self"])
def test_a_folder_of_the_running_system_is_no_data(stranger, run_caches, screen, root):
    run = stranger("config.json", lambda config: config["dataset"].update(root=root))
    with pytest.raises(UserError, match="a folder of the running system"):
        evaluate([run], None, None, None, run_caches, screen)


@pytest.mark.parametrize("known", [True, False])
def test_images_are_drawn_only_of_the_data_of_the_run(stranger, class_folders, run_caches, screen, tmp_path, known):
    """Else the folder could name any other of this machine."""
    other = shutil.copytree(class_folders, tmp_path / "other")
    next((other / "test").rglob("*.png")).unlink()
    run = stranger("result.json", lambda result: known or result["dataset"].pop("fingerprint"))
    config = json.loads((run / "config.json").read_text())
    config["dataset"]["root"] = str(other)  # which the manifest lets change
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is not the data of the run"):
        explain(ExplainFlags(run, show="smooth_grad", out=tmp_path / "out"), run_caches, screen)
    assert not (tmp_path / "out").exists()
