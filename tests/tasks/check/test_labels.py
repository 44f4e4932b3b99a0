"""Suspect labels and outliers on synthetic features, and on photos with exchanged labels."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.tasks.check.labels import HeldOutProbabilities, out_of_fold, outliers, outvoted, suspects
from vision_transfer.tasks.check.task import check


@pytest.fixture(scope="module")
def clouds():
    """Three clouds of 60 points in 16 dimensions, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    centres = rng.normal(0, 1.5, (3, 16))
    return centres[labels] + rng.normal(0, 1, (180, 16)), labels


def test_wrong_labels_are_found(clouds):
    features, truth = clouds
    wrong = np.array([3, 70, 130, 171])
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + 1) % 3
    answers = out_of_fold(features, labels, np.arange(180), 3)
    assert answers is not None
    found = suspects(answers, labels)
    assert {place for place, _, _ in found} >= set(wrong)
    assert len(found) <= len(wrong) + 2
    assert all(likelier == truth[place] for place, likelier, _ in found if place in wrong)


def test_neighbours_contradict_wrong_labels_alone(clouds):
    features, truth = clouds
    wrong = np.array([3, 70, 130, 171])
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + 1) % 3
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    votes = np.array([(labels[np.argsort(-row)[:10]] == label).sum() for row, label in zip(alike, labels, strict=True)])
    found = outvoted(features, labels)
    np.testing.assert_array_equal(found, votes <= 1)
    assert found[wrong].all() and found.sum() <= len(wrong) + 2


def test_suspects_match_the_definition_of_the_paper():
    """Against the definition, class by class in a loop."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    probabilities = rng.dirichlet(np.ones(4) * 0.5, 300)
    usual = [probabilities[labels == label, label].mean() for label in range(4)]
    expected = {}
    for place, (row, label) in enumerate(zip(probabilities, labels, strict=True)):
        confident = [other for other in range(4) if row[other] >= usual[other]]
        if confident:
            likelier = max(confident, key=lambda other: row[other])
            if likelier != label and row[likelier] > row[label]:
                expected[place] = (likelier, row[likelier] - row[label])
    found = suspects(HeldOutProbabilities(probabilities, np.ones(300, bool), 0.0), labels)
    assert {place: likelier for place, likelier, _ in found} == {place: pair[0] for place, pair in expected.items()}
    assert [margin for _, _, margin in found] == pytest.approx([pair[1] for pair in expected.values()])


def test_no_image_is_predicted_by_a_classifier_that_saw_its_copy():
    """Noise in which each point occurs twice: only a classifier that saw the copy can know its class."""
    rng = np.random.default_rng(2)
    features = np.repeat(rng.normal(0, 1, (50, 100)), 2, axis=0)
    labels = np.repeat(rng.integers(0, 2, 50), 2)
    apart = out_of_fold(features, labels, np.arange(100), 2)
    together = out_of_fold(features, labels, np.arange(100) // 2, 2)
    assert apart is not None
    assert together is not None
    assert apart.accuracy > 0.8
    assert together.accuracy < 0.75


def test_classes_with_few_images_are_left_out(clouds):
    features, labels = clouds
    few = np.concatenate([np.arange(120), [130, 131]])
    answers = out_of_fold(features[few], labels[few], np.arange(len(few)), 3)
    assert answers is not None
    assert answers.asked.tolist() == [True] * 120 + [False] * 2
    assert not suspects(answers, labels[few]) or max(place for place, _, _ in suspects(answers, labels[few])) < 120
    assert out_of_fold(features[:3], labels[:3], np.arange(3), 3) is None


def test_a_channel_that_differs_by_rounding_contradicts_nobody(clouds):
    """One that a single image activates: scaled to deviation 1, that image's value would be a million."""
    features, labels = clouds
    rounding = 1 + np.random.default_rng(0).uniform(0, 1e-7, (len(labels), 1))
    rounding[5] = 2.0
    plain, found = (
        out_of_fold(seen, labels, np.arange(180), 3) for seen in (features, np.hstack([features, rounding]))
    )
    assert plain is not None and found is not None
    # The folds that learn from that image may use it.
    assert found.accuracy == pytest.approx(plain.accuracy, abs=0.02)
    np.testing.assert_allclose(found.probabilities[5], plain.probabilities[5], rtol=1e-6)


def test_outliers_are_far_from_all_but_a_group_of_its_own_is_none(clouds):
    features = np.abs(clouds[0]) + 10
    strange = features.copy()
    strange[17, :8] *= -1
    alone = np.arange(180)
    assert [place for place, _ in outliers(strange, alone)] == [17]
    assert outliers(features, alone) == []
    assert outliers(features[:3], alone[:3]) == []
    # as many photos as there are neighbours, in another light
    strange[20:50, :8] *= -1
    assert 20 not in [place for place, _ in outliers(strange, alone)]


def test_images_beside_many_copies_are_no_outliers(clouds):
    features = np.abs(clouds[0]) + 10
    copies = features[[5] * 40] + np.random.default_rng(1).normal(0, 1e-3, (40, 16))
    found = outliers(np.concatenate([features, copies]), np.concatenate([np.arange(180), [5] * 40]))
    assert found == []


def test_exchanged_labels_of_photos_are_found(data_folder, vgg16_params, tmp_path, screen):
    """Eighty photos at 96 pixels, four of them with the label of the other class."""
    classic = data_folder / "cats_vs_dogs_small/train"
    if not classic.is_dir():
        pytest.skip("VISION_TRANSFER_DATA has no cats_vs_dogs_small")
    root, exchanged = tmp_path / "photos", set()
    for name, other in (("cat", "dog"), ("dog", "cat")):
        for number in range(40):
            wrong = number in (11, 23)
            place = root / (other if wrong else name) / f"{name}.{number}.jpg"
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(classic / name / f"{name}.{number}.jpg", place)
            if wrong:
                exchanged.add(place.relative_to(root).as_posix())
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "weights").symlink_to(Path(os.environ["VISION_TRANSFER_CACHE"]).resolve() / "weights")
    config = with_stages(default_config(), head=stage())
    config.dataset.root = str(root)
    config.dataset.image_size = 96
    report = json.loads(
        (check(checked(config), cache, tmp_path / "found", screen) / "check.json").read_text(encoding="utf-8")
    )
    assert report["labels"]["done"]
    found = [finding["files"][0] for finding in report["findings"] if finding["kind"] == "suspect_label"]
    assert exchanged <= set(found)
    assert len(found) <= len(exchanged) + 4


def test_groups_that_leave_nothing_to_learn_from_are_not_asked(clouds):
    """Frames of one film each: whole classes are in one fold."""
    features, labels = clouds
    assert out_of_fold(features, labels, labels, 3) is None, "fewer groups than folds"
    two = labels < 2
    groups = np.where(labels == 0, 0, np.arange(len(labels)))
    assert out_of_fold(features[two], labels[two], groups[two], 3) is None, "a fold is all of one class"
    films = np.arange(len(labels)) // 20
    assert out_of_fold(features, films, films, 9) is None, "each class is one film"
    answers = out_of_fold(features, labels, groups, 3)
    np.testing.assert_array_equal(answers.asked, labels > 0)
    assert np.isnan(answers.probabilities[labels == 0]).all() and answers.accuracy > 0.9
    assert not any(labels[place] == 0 for place, _, _ in suspects(answers, labels))
