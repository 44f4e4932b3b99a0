"""The networks in PyTorch's layout against PyTorch: a state dict is read as a file, and gives PyTorch's outputs."""

import io
import json
from functools import partial

import jax
import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from vision_transfer.models.load import load
from vision_transfer.models.network import all_parameter_shapes, apply
from vision_transfer.runtime.console import Screen

SHAPE = (2, 75, 90, 3)
CHANNEL_STRIDE = 8
# Of the largest value; the reference is float64.
TOLERANCE = 1e-5


@pytest.mark.parametrize("name", ["resnet50_torch", "mobilenet_v2_torch"])
def test_a_state_dict_gives_pytorch_s_outputs(tmp_path, reference, reference_folder, formula, name):
    shapes = json.loads((reference_folder / "torch_networks.json").read_text())[name]
    state = {tensor: formula.torch_weight(name, tensor, tuple(shape)) for tensor, shape in shapes.items()}
    save_file(state, tmp_path / "state.safetensors")
    network, variables = load(
        name, weights=tmp_path / "state.safetensors", pooling="flatten", screen=Screen(Console(file=io.StringIO()))
    )
    read = sum(leaf.size for leaves in variables["params"].values() for leaf in leaves.values())
    assert read == sum(values.size for tensor, values in state.items() if "running" not in tensor and values.ndim)
    assert variables["params"].keys() == all_parameter_shapes(network).keys()
    # The reference's images are no pixels: the first row is given them as they are.
    outputs = jax.jit(partial(apply, network, start=network.rows[0].name))
    found = np.asarray(outputs(variables, formula.weight("images", "input", SHAPE)))
    expected = reference("torch_networks")
    scale = np.abs(expected[f"{name}/channels"]).max()
    np.testing.assert_allclose(
        found[..., ::CHANNEL_STRIDE], expected[f"{name}/channels"], rtol=0, atol=TOLERANCE * scale
    )
    np.testing.assert_allclose(found.mean((1, 2, 3)), expected[f"{name}/mean"], rtol=0, atol=TOLERANCE * scale)
