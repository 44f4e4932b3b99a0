"""Freeze specs, masks, partitions, cuts."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vision_transfer import freezing
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import layer_names
from vision_transfer.models.network import Network, all_parameter_shapes

VGG = Network(backbone_rows("vgg16"), head_layers(1, flatten=True, hidden=(256,), dropout=0.5), (180, 180, 3))
AVERAGED = Network(backbone_rows("vgg16", global_average=True), head_layers(10, flatten=False), (112, 112, 3))
CONVNET = Network(
    backbone_rows("convnet_150", batch_norm=True), head_layers(1, flatten=True, hidden=(8,)), (150, 150, 3)
)
HEAD = {"head_dense1", "head_logits"}
BLOCK5 = {"block5_conv1", "block5_conv2", "block5_conv3"}


def trainable_layers(spec, network=VGG):
    mask = freezing.resolve(spec, network)
    for by_parameter in mask.values():
        assert len(set(by_parameter.values())) == 1
    return {layer for layer, by_parameter in mask.items() if all(by_parameter.values())}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("none", set(all_parameter_shapes(VGG))),
        ("all", HEAD),
        ("below:block5_conv1", HEAD | BLOCK5),
        # A pool has nothing to train; the layers after it do.
        ("below:block4_pool", HEAD | BLOCK5),
        ("below:block5_pool", HEAD),
        ("below:block1_conv1", set(all_parameter_shapes(VGG))),
        # Counted from the end: block5_pool, then the convolutions.
        ("last:0", HEAD),
        ("last:1", HEAD),
        ("last:2", HEAD | {"block5_conv3"}),
        ("last:4", HEAD | BLOCK5),
        ("last:5", HEAD | BLOCK5),
        ("last:6", HEAD | BLOCK5 | {"block4_conv3"}),
        ("last:18", set(all_parameter_shapes(VGG))),
        ("last:19", set(all_parameter_shapes(VGG))),
        ("only:block5_conv2", HEAD | {"block5_conv2"}),
        ("only:block5_conv2, block1_conv1", HEAD | {"block5_conv2", "block1_conv1"}),
        ("regex:block5_.*", BLOCK5),
        ("regex:(head_logits|block1_conv1)/(kernel|bias)", {"head_logits", "block1_conv1"}),
    ],
)
def test_specs(spec, expected):
    assert trainable_layers(spec) == expected


def test_global_pooling_of_the_base_is_counted():
    assert trainable_layers("last:5", AVERAGED) == BLOCK5 | {"head_logits"}
    assert trainable_layers("last:4", AVERAGED) == {"block5_conv2", "block5_conv3", "head_logits"}


def test_batch_norms_are_counted():
    # pool4, norm4
    assert trainable_layers("last:2", CONVNET) == HEAD | {"norm4"}
    assert trainable_layers("last:3", CONVNET) == HEAD | {"norm4", "conv4"}


def test_biases_alone():
    mask = freezing.resolve("regex:.*/bias", VGG)
    assert {tuple(by_parameter.items()) for by_parameter in mask.values()} == {(("kernel", False), ("bias", True))}
    assert freezing.counts(all_parameter_shapes(VGG), mask).trainable_tensors == 15


def test_a_regex_matches_the_whole_path():
    assert trainable_layers("regex:block5_conv1/.*|head_.*") == HEAD | {"block5_conv1"}
    with pytest.raises(UserError, match="leaves nothing to train"):
        freezing.resolve("regex:block5_conv1", VGG)


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        ("below:block5_conv9", r"'below:block5_conv9'.*no layer 'block5_conv9'.*did you mean block5_conv"),
        ("only:block5_conv1,blok4_conv1", "no layer 'blok4_conv1'.*did you mean block4_conv1"),
        ("below:head_dense1", "belongs to the head"),
        ("below:xyz", "known are block1_conv1"),
        ("last:20", "from 0 to 19"),
        ("last:-1", "from 0 to 19"),
        ("last:two", "whole number"),
        ("last:1.5", "whole number"),
        ("regex:(", "not a regular expression"),
        ("regex:nothing", r"leaves nothing to train.*block1_conv1/kernel.*head_logits/bias"),
        ("", "cannot read ''.*below:NAME"),
        ("everything", "cannot read 'everything'.*last:N"),
        ("all:yes", "cannot read"),
        ("none:x", "cannot read"),
        ("below:", "cannot read"),
        ("below", "cannot read"),
        ("only:", "cannot read"),
        ("regex:", "cannot read"),
        ("regex", "cannot read"),
        ("last:", "cannot read"),
    ],
)
def test_bad_specs_are_refused(spec, named):
    with pytest.raises(UserError) as error:
        freezing.resolve(spec, VGG)
    import re

    assert re.search(named, str(error.value), re.DOTALL), str(error.value)


def test_without_a_head_all_frozen_trains_nothing():
    with pytest.raises(UserError, match="leaves nothing to train"):
        freezing.resolve("all", Network(backbone_rows("mnist_convnet"), (), (28, 28, 1)))


@pytest.mark.parametrize(
    ("spec", "cut"),
    [
        ("all", "head_dense1"),
        ("below:block5_conv1", "block5_conv1"),
        ("below:block5_conv3", "block5_conv3"),
        ("only:block2_conv2", "block2_conv2"),
        ("only:block1_conv2", "block1_conv2"),
        ("none", "block1_conv1"),
        ("regex:block3_conv1/bias", "block3_conv1"),
    ],
)
def test_the_cut(spec, cut):
    assert freezing.cut(VGG, freezing.resolve(spec, VGG)) == cut


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", {"norm1", "norm2", "norm3", "norm4"}),
        ("none", set()),
        ("below:conv3", {"norm1", "norm2"}),
        ("below:norm3", {"norm1", "norm2"}),
        # A norm whose scale or bias trains updates its statistics; a convolution before it does not matter.
        ("regex:norm2/scale|conv3/.*", {"norm1", "norm3", "norm4"}),
    ],
)
def test_frozen_norms_are_in_inference_mode(spec, expected):
    assert freezing.inference_layers(CONVNET, freezing.resolve(spec, CONVNET)) == expected


LAYERS = st.dictionaries(
    st.text("abc_1", min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(["kernel", "bias", "scale"]), st.booleans(), min_size=1),
    min_size=1,
    max_size=6,
)


@given(LAYERS)
def test_merge_is_the_inverse_of_partition(mask):
    numbers = iter(range(100))
    params = {layer: {name: np.full(3, next(numbers)) for name in flags} for layer, flags in mask.items()}
    trainable, frozen = freezing.partition(params, mask)
    for merged in (freezing.merge(frozen, trainable), freezing.merge(trainable, frozen)):
        assert jax.tree.structure(merged) == jax.tree.structure(params)
        for layer, leaves in params.items():
            for name, leaf in leaves.items():
                # The very same array: nothing is copied.
                assert merged[layer][name] is leaf
    for side, flag in ((trainable, True), (frozen, False)):
        assert all(side.values())
        assert {(layer, name) for layer in side for name in side[layer]} == {
            (layer, name) for layer, flags in mask.items() for name in flags if flags[name] == flag
        }
    counts = freezing.counts(params, mask)
    assert counts.trainable == 3 * counts.trainable_tensors == 3 * len(jax.tree.leaves(trainable))
    assert counts.total == 3 * len(jax.tree.leaves(params))


def test_merge_prefers_the_second_and_changes_neither():
    first, second = {"a": {"x": 1, "y": 2}}, {"a": {"x": 3}, "b": {"z": 4}}
    assert freezing.merge(first, second) == {"a": {"x": 3, "y": 2}, "b": {"z": 4}}
    assert (first, second) == ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3}, "b": {"z": 4}})


@given(st.integers(0, 19))
def test_last_counts_from_the_end(count):
    """`last:N` trains layers after those that it freezes, and N + 1 freezes no more than N."""
    names = list(layer_names(VGG.backbone))
    trains = sorted(names.index(name) for name in trainable_layers(f"last:{count}") - HEAD)
    frozen = [names.index(name) for name in set(all_parameter_shapes(VGG)) - HEAD if names.index(name) not in trains]
    assert not trains or not frozen or max(frozen) < min(trains)
    if count < 19:
        assert trainable_layers(f"last:{count}") <= trainable_layers(f"last:{count + 1}")


@given(st.data())
def test_a_tree_of_flags_is_its_own_mask(data):
    shapes = all_parameter_shapes(CONVNET)
    tree = {layer: {name: data.draw(st.booleans()) for name in names} for layer, names in shapes.items()}
    if not any(any(flags.values()) for flags in tree.values()):
        with pytest.raises(UserError, match="leaves nothing to train"):
            freezing.freeze(tree, CONVNET)
        return
    mask = freezing.freeze(tree, CONVNET)
    assert mask == tree
    trainable, frozen = freezing.partition(shapes, mask)
    assert freezing.merge(trainable, frozen).keys() == shapes.keys()


def test_a_spec_and_its_layers_as_flags_are_the_same_mask():
    spec = freezing.freeze("below:block5_conv1", VGG)
    assert spec == freezing.resolve("below:block5_conv1", VGG)
    layers = {layer: layer in HEAD | BLOCK5 for layer in all_parameter_shapes(VGG)}
    assert freezing.freeze(layers, VGG) == spec


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"block5_conv4": True}, "did you mean block5_conv"),
        ({"block5_conv1": 1}, "give True"),
        ({"block5_conv1": {"kernel": True}}, "kernel, bias"),
        ({"block5_conv1": {"kernel": True, "bias": "yes"}}, "give True"),
    ],
)
def test_a_tree_that_does_not_fit_is_refused(change, part):
    tree = dict.fromkeys(all_parameter_shapes(VGG), False) | change
    with pytest.raises(UserError, match=part):
        freezing.freeze(tree, VGG)
    del tree["block1_conv1"]
    with pytest.raises(UserError, match="block"):
        freezing.freeze(tree, VGG)
