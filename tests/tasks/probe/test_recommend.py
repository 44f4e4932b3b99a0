"""The rule from scores to a freeze spec, in each of the textbooks' four cases; scores against scikit-learn."""

import numpy as np
import pytest

from vision_transfer.errors import UserError
from vision_transfer.freezing import resolve
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.tasks.probe.pooled_features import probed_layers
from vision_transfer.tasks.probe.recommend import recommend
from vision_transfer.tasks.probe.scores import LayerScores, best_layer, layer_scores, nearest_class_mean, usable
from vision_transfer.tasks.probe.task import transfer_figure

VGG16 = backbone_rows("vgg16", global_average=True)
LAYERS = probed_layers(VGG16)
IMAGES = 300
LARGE_FROM = 1000


def curve(heights):
    """Scores of all layers: the named ones classify the given share of images correctly, the others half."""
    return [LayerScores(layer, 8, np.arange(IMAGES) < IMAGES * heights.get(layer, 0.5), 0.5, -0.5) for layer in LAYERS]


def advice(heights, train_images):
    found = recommend(curve(heights), VGG16, train_images, LARGE_FROM)
    head = head_layers(3, flatten=False, hidden=(), activation="linear", dropout=0.0, dropout_place="before_output")
    resolve(found.freeze, Network(VGG16, head, (112, 112, 3)))  # raises if the spec does not fit the network
    return found


def rising(best=0.97):
    return {layer: 0.3 + (best - 0.3) * place / (len(LAYERS) - 1) for place, layer in enumerate(LAYERS)}


def test_small_and_similar_is_the_head_alone():
    found = advice(rising(), 300)
    assert (found.size, found.domain, found.freeze, found.best) == ("small", "similar", "all", "block5_pool")


def test_large_and_similar_is_the_last_block():
    assert advice(rising(), 1000).freeze == "below:block5_conv1"


def test_small_and_different_keeps_what_transfers():
    heights = {"block3_pool": 0.8, "block4_conv1": 0.79, "block4_conv2": 0.6}
    found = advice(heights, 300)
    assert (found.domain, found.best, found.as_good) == ("different", "block3_pool", ("block3_pool", "block4_conv1"))
    assert found.freeze == "below:block4_conv2"


def test_large_and_different_retrains_from_the_first_good_layer():
    heights = {"block2_pool": 0.79, "block3_conv1": 0.8, "block3_conv2": 0.8}
    assert advice(heights, 5000).freeze == "below:block3_conv1"
    assert advice({"block1_conv1": 0.9}, 5000).freeze == "below:block1_conv2"


def test_the_domain_is_similar_if_the_last_layer_is_not_distinguishable():
    nearly = {"block5_conv2": 0.90, "block5_conv3": 0.89, "block5_pool": 0.89}
    assert advice(nearly, 300).freeze == "all"
    worse = {"block5_conv2": 0.90, "block5_conv3": 0.89, "block5_pool": 0.80}
    found = advice(worse, 300)
    assert (found.domain, found.as_good) == ("different", ("block5_conv2", "block5_conv3"))
    assert found.freeze == "below:block5_conv1"
    assert advice(worse, 5000).freeze == "below:block4_conv1"


def test_reasons_have_the_numbers():
    text = " ".join(advice({"block3_pool": 0.8}, 300).reasons)
    for part in ("300 training images, small (large from 1,000)", "Best layer: block3_pool with 0.800", "different"):
        assert part in text
    assert "--config.model.backbone_output=block3_pool" in text
    assert "backbone_output" not in " ".join(advice(rising(), 300).reasons)


LITE = backbone_rows("efficientnet_lite0", global_average=True)


@pytest.mark.parametrize(
    ("best", "train_images", "freeze"),
    [
        ("top_activation", 300, "all"),
        ("top_activation", 3000, "below:block6a_expand_conv"),
        ("block3b", 300, "below:block4a_expand_conv"),
        ("block6d", 300, "below:block6a_expand_conv"),
        ("block6d", 3000, "below:block5a_expand_conv"),
    ],
)
def test_a_network_of_blocks_has_its_own_last_stage_and_edge(best, train_images, freeze):
    layers = probed_layers(LITE)
    scores = [
        LayerScores(one, 8, np.arange(IMAGES) < IMAGES * (0.9 if one == best else 0.5), 0.5, -0.5) for one in layers
    ]
    found = recommend(scores, LITE, train_images, LARGE_FROM, "block6")
    assert found.freeze == freeze
    edge = transfer_figure(scores, found, LITE, 0.5, "title").axes[1].lines[-1].get_xdata()[0]
    # The last layer left of the edge stays frozen, the first one right of it trains.
    frozen = [one for place, one in enumerate(layers) if place < edge]
    stage = freeze.removeprefix("below:").split("_")[0][:-1]
    assert frozen == list(layers if freeze == "all" else layers[: [one[:6] for one in layers].index(stage)])


def test_figure_shows_every_layer_and_where_training_begins():
    scores = curve(rising(best=1.0))
    figure = transfer_figure(scores, advice(rising(), 300), VGG16, 0.1, "title")
    upper, lower = figure.axes
    assert [tick.get_text() for tick in lower.get_xticklabels()] == list(LAYERS)
    assert "freeze all" in upper.get_title()
    assert {"logistic probe", "nearest class mean", "as good as the best"} <= {
        text.get_text() for text in upper.get_legend().get_texts()
    }


def test_scores_find_the_layer_with_the_signal(screen):
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    told = rng.normal(size=(60, 4)) + 2 * np.eye(3, 4)[labels]
    noise = rng.normal(size=(60, 5))
    pooled = {"noise": noise.astype(np.float32), "signal": told.astype(np.float32)}
    without, with_signal = layer_scores(pooled, labels, np.arange(60), screen)
    assert with_signal.probe > 0.75 > 0.55 > without.probe
    assert with_signal.nearest_mean > 0.75 > 0.55 > without.nearest_mean
    assert with_signal.logme > without.logme
    assert (without.width, with_signal.width) == (5, 4)
    assert with_signal.probe_interval[0] < with_signal.probe < with_signal.probe_interval[1]


def test_nearest_class_mean_has_means_and_scales_of_the_other_folds():
    from sklearn.model_selection import StratifiedGroupKFold

    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 90)
    features, right, groups = rng.normal(size=(90, 6)) + np.eye(4, 6)[labels], 0, np.arange(90) // 2
    for seen, unseen in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(features, labels, groups):
        assert not set(groups[seen]) & set(groups[unseen])
        scaled = (features - features[seen].mean(axis=0)) / features[seen].std(axis=0)
        means = np.stack([scaled[seen][labels[seen] == one].mean(axis=0) for one in range(4)])
        nearest = np.linalg.norm(scaled[unseen][:, None] - means, axis=2).argmin(axis=1)
        right += np.sum(nearest == labels[unseen])
    assert nearest_class_mean(features, labels, groups) == pytest.approx(right / 90)


def test_nearest_class_mean_passes_over_a_channel_that_differs_by_rounding():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 90)
    features, groups = rng.normal(size=(90, 6)) + np.eye(4, 6)[labels], np.arange(90)
    rounding = 1 + rng.uniform(0, 1e-7, (90, 1))
    rounding[labels == 0] += 1e-7
    found = nearest_class_mean(np.hstack([features, rounding]), labels, groups)
    assert found == nearest_class_mean(features, labels, groups)


def test_of_equal_scores_the_deepest_layer_is_the_best():
    first, second, third = curve({})[:3]
    heights = {first.layer: 1.0, second.layer: 2.0, third.layer: 2.0}
    assert best_layer([first, second, third], lambda one: heights[one.layer]) is third


def test_classes_with_few_images_are_left_out():
    assert (
        usable(np.array([0] * 5 + [1] * 4 + [2] * 6), np.arange(15)).tolist() == [True] * 5 + [False] * 4 + [True] * 6
    )
    with pytest.raises(UserError, match="fewer than two classes have 5"):
        usable(np.array([0] * 9 + [1] * 4), np.arange(13))


def test_a_group_counts_once():
    labels, groups = np.repeat([0, 1, 2], 12), np.concatenate([np.arange(12) // 3, 10 + np.arange(24)])
    assert usable(labels, groups).tolist() == [False] * 12 + [True] * 24
    with pytest.raises(UserError, match="5 groups of training images that stay together"):
        usable(labels, np.arange(36) // 3)


def test_images_of_one_person_do_not_tell_about_another(screen):
    """Each image is its person's; the class is drawn for each person, so that only the person can be learnt."""
    rng = np.random.default_rng(0)
    people, labels = np.repeat(np.arange(40), 5), np.repeat(rng.permutation(np.arange(40) % 2), 5)
    features = {"layer": (rng.normal(size=(40, 60))[people] + 0.1 * rng.normal(size=(200, 60))).astype(np.float32)}
    (divided,) = layer_scores(features, labels, np.arange(200), screen)
    (kept,) = layer_scores(features, labels, people, screen)
    assert divided.probe > 0.95 > 0.65 > kept.probe
    assert divided.nearest_mean > 0.75 > 0.65 > kept.nearest_mean
