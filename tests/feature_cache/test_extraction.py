"""The cache of features: cached rows equal computed ones, and each row is computed once."""

import hashlib
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from vision_transfer.data.rows import TakenRows
from vision_transfer.errors import UserError
from vision_transfer.feature_cache import FOLDER, FeatureRows, Prefix, concatenated, extraction, features
from vision_transfer.models.inference import infer
from vision_transfer.models.layers import Conv, Dense, Flatten, MaxPool
from vision_transfer.models.network import Network, all_parameter_shapes, apply
from vision_transfer.models.precision import Numerics
from vision_transfer.runtime.jax_setup import DETERMINISTIC_FLAG

NETWORK = Network(
    (Conv("conv1", 4), MaxPool("pool1"), Conv("conv2", 5), MaxPool("pool2"), Conv("conv3", 6)),
    (Flatten("flatten"), Dense("logits", 2)),
    (18, 18, 3),
    "rescale",
)
EXAMPLES, BATCH = 10, 3


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    params = {
        layer: {name: jnp.asarray(rng.normal(0, 0.3, shape), jnp.float32) for name, shape in parameters.items()}
        for layer, parameters in all_parameter_shapes(NETWORK).items()
    }
    return {"params": params, "batch_stats": {}}


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 255, (EXAMPLES, 18, 18, 3), dtype=np.uint8)


def digests_of(images):
    return np.stack([np.frombuffer(hashlib.md5(image.tobytes()).digest(), np.uint8) for image in images])


@pytest.fixture
def prefix(variables, mesh, tmp_path):
    return Prefix(NETWORK, variables, mesh, BATCH, tmp_path)


@pytest.fixture
def computed(monkeypatch):
    """The passes that are computed: `(start, stop, number of images)` of each."""
    passes = []
    compute = extraction.infer_batches

    def spy(network, variables, inputs, mesh, *, batch_size, start, stop):
        passes.append((start, stop, inputs.shape[0]))
        return compute(network, variables, inputs, mesh, batch_size=batch_size, start=start, stop=stop)

    monkeypatch.setattr(extraction, "infer_batches", spy)
    return passes


@pytest.fixture
def small_shards(monkeypatch):
    """A shard for each batch."""
    monkeypatch.setattr(extraction, "SHARD_BYTES", 1)


@pytest.fixture
def get(prefix, screen):
    def take(layer, images, prefix=prefix):
        rows = features(prefix, layer, images, digests_of(images), screen)
        return rows[np.arange(len(images))]

    return take


@pytest.fixture(scope="module")
def expected(variables, images):
    values = jnp.asarray(images)
    return {layer: np.asarray(apply(NETWORK, variables, values, stop=layer)) for layer in ("pool1", "pool2")}


def shards(prefix):
    return sorted((prefix.folder / FOLDER).rglob("*.npy"))


def test_features_are_the_layers_outputs_and_computed_once(get, images, expected, computed):
    for _ in range(2):
        np.testing.assert_allclose(get("pool2", images), expected["pool2"], atol=1e-6)
    assert computed == [(None, "pool2", EXAMPLES)]


def test_logits_from_features_are_the_direct_ones(get, images, variables, mesh):
    direct = infer(NETWORK, variables, images, mesh, batch_size=4)
    found = infer(NETWORK, variables, get("pool1", images), mesh, batch_size=7, start="conv2")
    np.testing.assert_allclose(found, direct, atol=1e-5)


def test_rows_are_found_by_content(get, images, expected, computed):
    get("pool1", images)
    chosen = [7, 2, 2, 9]
    np.testing.assert_allclose(get("pool1", images[chosen]), expected["pool1"][chosen], atol=1e-6)
    assert len(computed) == 1


@pytest.mark.usefixtures("small_shards")
def test_only_what_is_missing_is_computed(get, images, expected, computed):
    get("pool1", images[3:7])
    np.testing.assert_allclose(get("pool1", images), expected["pool1"], atol=1e-6)
    assert [count for _, _, count in computed] == [4, EXAMPLES - 4]


def test_equal_images_are_computed_once(get, images, expected, computed):
    twice = np.concatenate([images[:2], images[:3]])
    np.testing.assert_allclose(get("pool1", twice), expected["pool1"][[0, 1, 0, 1, 2]], atol=1e-6)
    assert computed == [(None, "pool1", 3)]


def test_deeper_features_start_from_shallower_ones(get, images, expected, computed):
    get("pool1", images)
    np.testing.assert_allclose(get("pool2", images), expected["pool2"], atol=1e-5)
    assert computed == [(None, "pool1", EXAMPLES), ("conv2", "pool2", EXAMPLES)]


def test_shallower_features_that_lack_a_row_are_no_start(get, images, expected, computed):
    get("pool1", images[:-1])
    np.testing.assert_allclose(get("pool2", images), expected["pool2"], atol=1e-5)
    assert computed[-1] == (None, "pool2", EXAMPLES)


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_extraction_keeps_its_shards(get, prefix, images, expected, monkeypatch):
    class Killed(BaseException):
        pass

    compute, counts = extraction.infer_batches, []

    def dying(network, variables, inputs, *arguments, **options):
        counts.append(inputs.shape[0])
        for number, batch in enumerate(compute(network, variables, inputs, *arguments, **options)):
            if number == 2 and len(counts) == 1:
                raise Killed
            yield batch

    monkeypatch.setattr(extraction, "infer_batches", dying)
    with pytest.raises(Killed):
        get("pool2", images)
    assert len(shards(prefix)) == 2
    # A file that was being written when the process ended is removed, not read.
    half = shards(prefix)[0].with_name("half.npy.writing-0123")
    half.write_bytes(b"half")
    np.testing.assert_allclose(get("pool2", images), expected["pool2"], atol=1e-6)
    assert counts == [EXAMPLES, EXAMPLES - 2 * BATCH]
    assert not half.exists()


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize(
    "damage",
    [
        lambda array: array.write_bytes(array.read_bytes()[:-1] + b"x"),
        lambda array: array.write_bytes(array.read_bytes()[:100]),
        lambda array: array.unlink(),
        lambda array: array.with_suffix(".json").write_text("{"),
        lambda array: array.with_suffix(".json").write_text("[]"),
        lambda array: array.with_suffix(".json").unlink(),
    ],
)
def test_a_damaged_shard_is_computed_again(get, prefix, images, expected, computed, damage):
    get("pool1", images)
    damage(shards(prefix)[1])
    np.testing.assert_allclose(get("pool1", images), expected["pool1"], atol=1e-6)
    assert computed[1:] == [(None, "pool1", BATCH)] or computed[1:] == [(None, "pool1", 1)]


OTHER_LAYERS = (Conv("conv1", 4, activation="linear"), *NETWORK.backbone[1:])


@pytest.mark.parametrize(
    "changed",
    [
        {"network": replace(NETWORK, preprocessing="caffe")},
        {"network": replace(NETWORK, backbone=OTHER_LAYERS)},
        {"network": replace(NETWORK, input_shape=(20, 18, 3))},
        {"dtype": "bfloat16"},
    ],
)
def test_what_determines_features_is_in_their_key(prefix, changed):
    assert replace(prefix, **changed).description("pool1") != prefix.description("pool1")


def test_features_of_deterministic_operations_have_a_key_of_their_own(prefix, monkeypatch):
    before = prefix.description("pool1")
    monkeypatch.setenv("XLA_FLAGS", f"--xla_other=1 {DETERMINISTIC_FLAG}")
    assert prefix.description("pool1") == before | {"deterministic": True}


def with_added(variables, layer):
    params = dict(variables["params"])
    params[layer] = {"kernel": params[layer]["kernel"] + 1, "bias": params[layer]["bias"]}
    return variables | {"params": params}


def test_only_weights_of_the_prefix_are_in_the_key(prefix, variables):
    before = prefix.description("pool1")
    assert replace(prefix, variables=with_added(variables, "conv1")).description("pool1") != before
    for layer in ("conv2", "conv3", "logits"):
        assert replace(prefix, variables=with_added(variables, layer)).description("pool1") == before


def test_layers_after_the_prefix_are_not_in_the_key(prefix):
    other = Network(NETWORK.backbone[:3], (Flatten("flatten"), Dense("logits", 7)), NETWORK.input_shape, "rescale")
    assert replace(prefix, network=other).description("pool1") == prefix.description("pool1")


def test_other_weights_have_other_features(get, prefix, images, variables, expected, computed):
    get("pool1", images)
    changed = get("pool1", images, replace(prefix, variables=with_added(variables, "conv1")))
    assert np.abs(changed - expected["pool1"]).max() > 0.1
    assert len(computed) == 2


@pytest.mark.usefixtures("small_shards")
def test_rows_come_in_any_order(prefix, images, expected, screen):
    rows = features(prefix, "pool1", images, digests_of(images), screen)
    assert isinstance(rows, FeatureRows)
    assert len(rows.shards) > 1
    assert (rows.shape, rows.dtype) == (expected["pool1"].shape, np.float32)
    order = np.array([9, 0, 5, 5, 1])
    np.testing.assert_allclose(rows[order], expected["pool1"][order], atol=1e-6)
    np.testing.assert_array_equal(TakenRows(rows, order)[np.array([2, 0])], rows[np.array([5, 9])])
    both = concatenated([rows, rows])
    np.testing.assert_array_equal(both[order + EXAMPLES], rows[order])
    np.testing.assert_array_equal(both[np.array([3, 13])], rows[np.array([3, 3])])


def test_nothing_is_pickled(get, prefix, images):
    get("pool1", images)
    for path in shards(prefix):
        np.load(path, allow_pickle=False)
    written = {path.suffix for path in Path(prefix.folder).rglob("*") if path.is_file()}
    assert written == {".npy", ".json", ".lock", ".used"}


def test_bfloat16_features_are_the_float32_ones_rounded(get, prefix, images, computed):
    rounded = get("pool2", images, replace(prefix, dtype="bfloat16"))
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, get("pool2", images).astype(jnp.bfloat16))
    assert len(computed) == 2


def test_rounded_features_are_no_start_for_deeper_ones(get, prefix, images, computed):
    half = replace(prefix, dtype="bfloat16")
    for layer in ("pool1", "pool2"):
        get(layer, images, half)
    assert [start for start, _, _ in computed] == [None, None]


def test_logits_from_bfloat16_features_are_near_the_direct_ones(get, prefix, images, variables, mesh):
    direct = infer(NETWORK, variables, images, mesh, batch_size=4)
    kept = get("pool1", images, replace(prefix, dtype="bfloat16"))
    found = infer(NETWORK, variables, kept, mesh, batch_size=4, start="conv2")
    np.testing.assert_allclose(found, direct, atol=2**-8 * np.abs(direct).max() * 4)


def test_what_is_computed_in_bfloat16_is_kept_in_it(get, prefix, images, variables):
    network = replace(NETWORK, numerics=Numerics("bfloat16"))
    kept = get("pool1", images, replace(prefix, network=network))
    expected = apply(network, variables, jnp.asarray(images), stop="pool1")
    assert kept.dtype == expected.dtype == jnp.bfloat16
    np.testing.assert_allclose(kept.astype(np.float32), np.asarray(expected, np.float32), rtol=2**-6, atol=1e-2)


def test_too_little_disk_is_said_before_anything_is_computed(get, images, computed, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(100_000, 94_000, 6_000))
    with pytest.raises(UserError, match=r"pool1 for 10 images need 10\.2 kB, and 6\.0 kB are free .*--prune"):
        get("pool1", images)
    assert computed == []


@pytest.mark.parametrize("batch_size", [1, 4, 10, 64])
def test_inference_gives_each_row_once_whatever_the_batch(variables, images, mesh, batch_size):
    found = infer(NETWORK, variables, images, mesh, batch_size=batch_size)
    np.testing.assert_allclose(found, apply(NETWORK, variables, jnp.asarray(images)), atol=1e-5)
