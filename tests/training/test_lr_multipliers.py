"""Rates of single parameters: which factor each gets, what Optax makes of them, and that no value compiles anew."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vision_transfer import freezing
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import backbone_rows
from vision_transfer.models.heads import head_layers
from vision_transfer.models.network import Network
from vision_transfer.training.lr_multipliers import resolve_multipliers
from vision_transfer.training.optimizers import OptimizerSpec, descent
from vision_transfer.training.step import Chunk, Constants, initial_state, run_steps

RATE, STEPS = 0.01, 4
RULES = ("conv3/.*=0.1", "hidden/kernel=3")


@pytest.fixture(scope="module")
def vgg():
    return Network(
        backbone_rows("vgg16"),
        head_layers(1, flatten=True, hidden=(8,), activation="relu", dropout=0.0, dropout_place="before_output"),
        (64, 64, 3),
    )


def test_layer_decay_falls_from_layer_to_layer_below_the_head(vgg):
    factors = resolve_multipliers(("layer_decay=0.5",), vgg)
    assert [factors[name]["kernel"] for name in ("block5_conv3", "block5_conv2", "block4_conv3", "block1_conv1")] == [
        0.5,
        0.25,
        0.5**4,
        0.5**13,
    ]
    assert set(factors[vgg.head[-1].name].values()) == {1.0}


def test_block_decay_gives_a_block_one_rate(vgg):
    factors = resolve_multipliers(("block_decay=0.5",), vgg)
    assert {factors[f"block5_conv{i}"]["bias"] for i in (1, 2, 3)} == {0.5}
    assert factors["block1_conv2"]["kernel"] == 0.5**5


def test_the_first_pattern_counts_and_decays_multiply(vgg):
    rules = ("block5_conv1/kernel=0.5", "block5_.*=0.1", "block_decay=0.5")
    factors = resolve_multipliers(rules, vgg)
    assert factors["block5_conv1"] == {"kernel": 0.25, "bias": 0.05}
    assert factors["block4_conv1"] == {"kernel": 0.25, "bias": 0.25}


@pytest.mark.parametrize(
    ("rule", "part"),
    [
        ("block5_.*", "cannot read"),
        ("block5_.*=fast", "cannot read"),
        ("block5_.*=-1", "cannot read"),
        ("block9_.*=0.1", "matches no parameter"),
        ("block5_(=0.1", "not a regular expression"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_refused(vgg, rule, part):
    with pytest.raises(UserError, match=part):
        resolve_multipliers((rule,), vgg)


OPTAX = {
    "rmsprop": lambda rate: optax.rmsprop(rate, decay=0.9, eps=1e-7, eps_in_sqrt=True),
    "sgd": lambda rate: optax.sgd(rate, momentum=0.9),
}
OURS = {"rmsprop": OptimizerSpec("rmsprop"), "sgd": OptimizerSpec("sgd", momentum=0.9)}


@pytest.mark.parametrize("name", OPTAX)
@pytest.mark.parametrize("freeze", ["none", "below:conv3", "only:conv1", "regex:.*/bias|conv3/kernel"])
def test_masks_times_multipliers_are_optax_s_multi_transform(small_network, prepared, name, freeze):
    network = small_network()
    _, trainable, _, _ = prepared(network, freeze)
    factors = resolve_multipliers(RULES, network)
    own = {layer: {leaf: factors[layer][leaf] for leaf in leaves} for layer, leaves in trainable.items()}
    values = {factor for leaves in own.values() for factor in leaves.values()}
    reference = optax.multi_transform({str(factor): OPTAX[name](RATE * factor) for factor in values}, _texts(own))
    ours = descent(OURS[name])
    rates = jax.tree.map(lambda factor: jnp.float32(RATE * factor), own)
    found, expected = trainable, trainable
    state, reference_state = ours.init(found), reference.init(expected)
    random = np.random.default_rng(0)
    for _ in range(STEPS):
        gradients = jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), jnp.float32), trainable)
        change, state = ours.update(gradients, state, found, rate=rates)
        found = jax.tree.map(lambda leaf, less: leaf - less, found, change)
        updates, reference_state = reference.update(gradients, reference_state, expected)
        expected = optax.apply_updates(expected, updates)
    for leaf, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-5, atol=1e-6)


def _texts(factors):
    return {layer: {name: str(factor) for name, factor in leaves.items()} for layer, leaves in factors.items()}


def test_other_multipliers_are_other_numbers_of_the_same_program(
    small_network, small_data, prepared, mesh, examples_of, order_of
):
    network, data = small_network(), small_data(8)
    program, trainable, frozen, batch_stats = prepared(network, "below:conv3", optimizer=OptimizerSpec("sgd"))

    def moved(factor, rate=RATE):
        multipliers = {
            layer: dict.fromkeys(leaves, np.float32(factor if layer == "conv3" else 1))
            for layer, leaves in trainable.items()
        }
        state = initial_state(program, trainable, batch_stats)
        order = order_of(np.arange(8).reshape(1, 8), rate)
        key = jax.random.key(0)
        after = run_steps(
            state,
            Chunk(examples_of(*data), order, 0, 1),
            Constants(frozen, key, 0, multipliers),
            program=program,
            mesh=mesh,
            resident=True,
        ).trainable
        return {layer: np.asarray(after[layer]["kernel"] - trainable[layer]["kernel"]) for layer in trainable}

    plain = moved(1)
    programs = run_steps._cache_size()
    tenth, still = moved(0.1), moved(0)
    assert run_steps._cache_size() == programs
    np.testing.assert_allclose(tenth["conv3"], 0.1 * plain["conv3"], rtol=1e-3, atol=1e-7)
    np.testing.assert_array_equal(tenth["logits"], plain["logits"])
    assert np.any(plain["conv3"]) and not np.any(still["conv3"])


def test_a_mask_names_what_trains_and_multipliers_do_not(small_network):
    network = small_network()
    mask = freezing.resolve("below:conv3", network)
    assert resolve_multipliers(("conv1/.*=0.5",), network)["conv1"]["kernel"] == 0.5
    assert not mask["conv1"]["kernel"]
