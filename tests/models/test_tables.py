"""Layer tables: the parameter counts and shapes of the classic networks, and refused tables."""

import jax
import jax.numpy as jnp
import pytest

from vision_transfer import freezing
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import BACKBONES, backbone_rows
from vision_transfer.models.backbones.vgg import CLASSIFIER
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import (
    CONVOLUTIONS,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool,
    MaxPool,
    layer_names,
    stage_starts,
    stages,
)
from vision_transfer.models.network import Network, all_parameter_shapes
from vision_transfer.models.summary import summary_rows, summary_table


def counts(network, freeze="none"):
    return freezing.counts(all_parameter_shapes(network), freezing.resolve(freeze, network))


def base_counts(name, input_shape):
    network = Network(backbone_rows(name), (), input_shape)
    return counts(network).total


def output_shapes(network):
    return {row.name: row.shape for row in summary_rows(network, {})}


def test_mnist_convnet():
    assert base_counts("mnist_convnet", (28, 28, 1)) == 55_744
    head = head_layers(10, flatten=True, hidden=(64,), activation="relu")
    network = Network(backbone_rows("mnist_convnet"), head, (28, 28, 1))
    assert counts(network).total == 93_322
    assert list(output_shapes(network).values()) == [
        (28, 28, 1),
        (26, 26, 32),
        (13, 13, 32),
        (11, 11, 64),
        (5, 5, 64),
        (3, 3, 64),
        (576,),
        (64,),
        (10,),
    ]


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_convnet_150(dropout):
    head = head_layers(
        1, flatten=True, hidden=(512,), activation="relu", dropout=dropout, dropout_place="before_hidden"
    )
    network = Network(backbone_rows("convnet_150"), head, (150, 150, 3))
    assert counts(network).total == 3_453_121
    shapes = output_shapes(network)
    assert [shapes[f"pool{i}"] for i in range(1, 5)] == [(74, 74, 32), (36, 36, 64), (17, 17, 128), (7, 7, 128)]
    assert shapes["head_flatten"] == (6272,)
    if dropout:
        names = layer_names(network.layers)
        assert names.index("head_flatten") < names.index("head_dropout") < names.index("head_dense1")


def test_convnet_180():
    network = Network(backbone_rows("convnet_180"), head_layers(1, flatten=True, dropout=0.5), (180, 180, 3))
    assert counts(network).total == 991_041
    shapes = output_shapes(network)
    assert [shapes[f"conv{i}"] for i in range(1, 6)] == [
        (178, 178, 32),
        (87, 87, 64),
        (41, 41, 128),
        (18, 18, 256),
        (7, 7, 256),
    ]
    assert shapes["head_flatten"] == (12_544,)


@pytest.mark.parametrize(("size", "last"), [(150, 4), (180, 5), (224, 7)])
def test_vgg16_base(size, last):
    network = Network(backbone_rows("vgg16"), (), (size, size, 3))
    assert counts(network).total == 14_714_688
    assert network.places[-1].output == (last, last, 512)


def test_vgg16_with_a_dense_head():
    network = Network(backbone_rows("vgg16"), head_layers(1, flatten=True, hidden=(256,)), (150, 150, 3))
    everything, head_only = counts(network), counts(network, "all")
    assert (everything.total, everything.trainable_tensors) == (16_812_353, 30)
    assert (head_only.trainable, head_only.trainable_tensors, head_only.frozen_tensors) == (2_097_665, 4, 26)


def test_vgg16_with_global_pooling_counted_as_keras_counts():
    network = Network(backbone_rows("vgg16", global_average=True), head_layers(10, flatten=False), (224, 224, 3))
    found = counts(network, "last:5")
    assert (found.total, found.trainable, found.frozen) == (14_719_818, 7_084_554, 7_635_264)


@pytest.mark.parametrize(("name", "with_classifier"), [("vgg16", 138_357_544), ("vgg19", 143_667_240)])
def test_the_imagenet_classifiers(name, with_classifier):
    """The counts in Keras's documentation."""
    assert counts(Network(backbone_rows(name), CLASSIFIER, (224, 224, 3))).total == with_classifier


def test_vgg19_base():
    assert base_counts("vgg19", (224, 224, 3)) == 20_024_384
    assert len(layer_names(backbone_rows("vgg19"))) == 21


def test_dense_network():
    head = head_layers(10, flatten=True, hidden=(512,), activation="relu")
    network = Network(backbone_rows("dense"), head, (28, 28, 1))
    assert counts(network).total == 28 * 28 * 512 + 512 + 512 * 10 + 10
    assert freezing.cut(network, freezing.resolve("all", network)) == "head_dense1"


def test_a_head_on_an_earlier_layer():
    backbone = backbone_rows("vgg16", output="block3_pool")
    network = Network(backbone, head_layers(1, flatten=True, hidden=(256,)), (150, 150, 3))
    assert network.backbone[-1].name == "block3_pool"
    assert output_shapes(network)["head_flatten"] == (18 * 18 * 256,)
    assert counts(network, "all").frozen == 1_735_488


def test_batch_norm_stands_before_the_activation():
    layers = backbone_rows("convnet_150", batch_norm=True)
    assert layer_names(layers)[:3] == ("conv1", "norm1", "pool1")
    assert (layers[0].activation, layers[1].activation) == ("linear", "relu")
    network = Network(layers, head_layers(1, flatten=True, hidden=(512,)), (150, 150, 3))
    assert counts(network).total == 3_453_121 + 2 * (32 + 64 + 128 + 128)


@pytest.mark.parametrize("outputs", [1, 7])
def test_the_head_ends_in_logits(outputs):
    last = head_layers(outputs, flatten=True, hidden=(4,), activation="relu", dropout=0.1)[-1]
    assert (last.features, last.activation) == (outputs, "linear")


def test_the_dropouts_place():
    names = layer_names(head_layers(1, flatten=True, hidden=(4, 5), dropout=0.1, dropout_place="before_output"))
    assert names == ("head_flatten", "head_dense1", "head_dense2", "head_dropout", "head_logits")


def test_summary_rows_count_what_trains_in_each_stage():
    network = Network(backbone_rows("vgg16"), head_layers(1, flatten=True, hidden=(256,)), (150, 150, 3))
    masks = {spec: freezing.resolve(spec, network) for spec in ("all", "below:block5_conv1", "regex:.*/bias")}
    rows = {row.name: row for row in summary_rows(network, masks)}
    assert rows["input"].shape == (150, 150, 3)
    assert rows["block5_conv1"].parameters == 2_359_808
    assert rows["block5_conv1"].trainable == (0, 2_359_808, 512)
    assert rows["head_logits"].trainable == (257, 257, 1)
    assert sum(row.parameters for row in rows.values()) == 16_812_353


def test_the_summary_names_each_layer_and_the_total(screen):
    network = Network(backbone_rows("mnist_convnet"), head_layers(10, flatten=True), (28, 28, 1))
    screen.say(summary_table(network, {"head": freezing.resolve("all", network)}, "title"))
    text = screen.console.file.getvalue()
    assert all(name in text for name in layer_names(network.layers))
    assert f"{55_744 + 5_770:,}" in text


@pytest.mark.parametrize("name", BACKBONES)
def test_tables_say_what_flax_makes_of_them(name):
    """Shapes that follow from the table are those of the parameters that a network is initialised with."""
    from vision_transfer.models.layer_stack import LayerStack

    size = 32 if name.startswith("vgg") else 190
    network = Network(backbone_rows(name), head_layers(3, flatten=True, hidden=(5,)), (size, size, 3))
    stack = LayerStack(network.rows, network.numerics)
    made = jax.eval_shape(lambda: stack.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))["params"]
    shapes = {layer: {key: leaf.shape for key, leaf in leaves.items()} for layer, leaves in made.items()}
    assert shapes == all_parameter_shapes(network)


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(UserError, match="must not contain a slash"):
        Network((Conv("block/a", 4),), (), (8, 8, 3))  # its checkpoint could not be told from a layer `block`
    with pytest.raises(UserError, match="more than one layer named a"):
        Network((Conv("a", 1), Conv("b", 1), Conv("a", 1)), (), (9, 9, 1))
    with pytest.raises(UserError, match="head_logits"):
        Network((Flatten("head_logits"),), (Dense("head_logits", 1),), (9, 9, 1))


@pytest.mark.parametrize(
    ("layers", "shape", "named"),
    [
        ((Conv("small", 1),), (2, 9, 1), "'small'.*2×9.*too small"),
        ((MaxPool("pool"),), (1, 9, 1), "'pool'.*too small"),
        ((Dense("dense", 1),), (2, 2, 1), "'dense'.*Flatten"),
        ((Flatten("flat"), Conv("conv", 1)), (2, 2, 1), "'conv'.*height, width, channels"),
        ((Flatten("flat"), GlobalAveragePool("mean")), (2, 2, 1), "'mean'"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layers, shape, named):
    with pytest.raises(UserError, match=named):
        Network(layers, (), shape)


def test_images_too_small_for_vgg16_are_refused():
    with pytest.raises(UserError, match=r"block5_pool.*image_size"):
        Network(backbone_rows("vgg16"), head_layers(1, flatten=True), (31, 31, 3))
    Network(backbone_rows("vgg16"), head_layers(1, flatten=True), (32, 32, 3))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "vgg17"}, "config.model.backbone.*'vgg17'.*vgg16"),
        ({"name": "vgg16", "output": "block3_pol"}, "config.model.backbone_output.*block3_pool"),
        ({"name": "vgg16", "batch_norm": True}, "config.model.batch_norm.*convnet_150"),
    ],
)
def test_unknown_backbones_and_layers_are_refused(arguments, named):
    with pytest.raises(UserError, match=named):
        backbone_rows(**arguments)


def test_dropout_has_no_place_without_a_rate():
    assert not any(isinstance(layer, Dropout) for layer in head_layers(1, flatten=True, hidden=(3,), dropout=0.0))


def test_each_row_names_its_block():
    vgg = backbone_rows("vgg19", global_average=True)
    assert [name for name, _ in stages(vgg)] == [*(f"block{i}" for i in range(1, 6)), "global_average_pooling2d"]
    assert [len(members) for _, members in stages(vgg)] == [3, 3, 5, 5, 5, 1]
    assert stage_starts(vgg) == tuple(f"block{block}_conv1" for block in range(1, 6))


def test_layers_outside_of_blocks_are_blocks_by_themselves():
    convnet = backbone_rows("convnet_150", batch_norm=True)
    assert [name for name, _ in stages(convnet)][:3] == ["conv1", "norm1", "pool1"]
    assert stage_starts(convnet) == ("conv1", "conv2", "conv3", "conv4")


@pytest.mark.parametrize("name", BACKBONES)
def test_recipes_fine_tune_a_backbone_from_a_stage_that_it_has(name):
    has_convolutions = [
        stage for stage, layers in stages(BACKBONES[name].rows) if any(isinstance(one, CONVOLUTIONS) for one in layers)
    ]
    assert BACKBONES[name].fine_tune_from in (has_convolutions or [""])
