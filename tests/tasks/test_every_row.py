"""Each kind of row is known everywhere: where it is computed, described, counted, exported and built by peers."""

import json
from typing import get_args
from unittest.mock import MagicMock

import jax
import numpy as np
import onnx
import pytest

from vision_transfer.models.layers import Activation, Dropout, Layer, Merge
from vision_transfer.models.network import apply_watching
from vision_transfer.models.shapes import parameter_shapes
from vision_transfer.models.summary import summary_rows
from vision_transfer.tasks.benchmark.cases import Case, peer_request
from vision_transfer.tasks.benchmark.costs import layer_costs
from vision_transfer.tasks.benchmark.peers import torch_peer
from vision_transfer.tasks.export.inference_network import plain_network
from vision_transfer.tasks.export.keras_layers import MERGES, keras_layers
from vision_transfer.tasks.export.onnx_graph import onnx_model
from vision_transfer.training.optimizers import OptimizerSpec


def described(rows):
    """The rows of a request to a peer, those inside blocks included, and the blocks' merges."""
    for row in rows:
        if row["kind"] == "Block":
            yield from (inner for branch in row["branches"] for inner in described(branch))
            yield row["merge"]
        else:
            yield row


@pytest.fixture(scope="module")
def places(every_row, varied_variables):
    """Place → names of the layers that it knows."""
    variables, names = varied_variables(every_row), [layer.name for layer in every_row.layers]
    images = np.zeros((1, *every_row.input_shape), np.float32)
    watch = jax.jit(lambda images: apply_watching(every_row, variables, images, names)[1])
    outputs = jax.eval_shape(watch, images)
    with_parameters = {place.layer.name for place in every_row.places if parameter_shapes(place.layer, place.before)}
    plain = plain_network(every_row, variables, 1.0, ("a", "b", "c"))
    nodes = onnx.load_from_string(onnx_model(plain)).graph.node
    case = Case("forward", every_row, "none", "images", 1, OptimizerSpec("sgd"))
    asked = list(described(json.loads(json.dumps(peer_request(case)))["layers"]))
    pools = [row for row in asked if row["kind"] == "PoolLayers"]
    others = [row for row in asked if row["kind"] not in {*MERGES, "PoolLayers"}]
    return {
        "layer_stack.py and shapes.py": {
            place.layer.name for place in every_row.places if outputs[place.layer.name].shape[1:] == place.output
        },
        "summary.py": {row.name for row in summary_rows(every_row, {}) if row.kind},
        "costs.py": {
            cost.name
            for cost in layer_costs(every_row, 1)
            if cost.forward.bytes and (cost.forward.flops or cost.name not in with_parameters)
        },
        "keras_layers.py": {layer.name for layer in keras_layers(plain)},
        # Dropout does nothing at inference.
        "onnx_graph.py": {node.name for node in nodes}
        | {layer.name for layer in every_row.layers if isinstance(layer, Dropout)},
        "torch_peer.py": {row["name"] for row in asked if row["kind"] in {*torch_peer.MERGES, "concat"}}
        | {row["name"] for row in pools if torch_peer.cell_means(MagicMock(), MagicMock(), row)}
        | {row["name"] for row in others if torch_peer.modules_of_row(MagicMock(), row)},
    }


@pytest.mark.parametrize("kind", get_args(Layer), ids=lambda kind: kind.__name__)
def test_each_kind_is_known_everywhere(kind, every_row, places):
    names = {layer.name for layer in every_row.layers if isinstance(layer, kind)}
    assert names, "the fixture `every_row` has no such row"
    assert {place: names - known for place, known in places.items() if names - known} == {}


def test_the_network_has_every_activation_and_every_merge(every_row):
    activations = {layer.activation for layer in every_row.layers if hasattr(layer, "activation")}
    assert activations == set(get_args(Activation))
    merges = {layer.kind for layer in every_row.layers if isinstance(layer, Merge)}
    assert merges == set(MERGES) == {*torch_peer.MERGES, "concat"}
