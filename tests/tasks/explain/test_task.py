"""`--mode=explain`: the figures that the flags ask for, and messages where they cannot be drawn."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from vision_transfer.config import checked, default_config, stage, with_stages
from vision_transfer.errors import UserError
from vision_transfer.models.backbones.registry import find_backbone
from vision_transfer.models.heads import head_layers
from vision_transfer.models.layers import Conv
from vision_transfer.models.network import Network, init
from vision_transfer.models.pretrained.load import PretrainedWeights
from vision_transfer.tasks.explain import draw, task
from vision_transfer.tasks.explain.draw import Selection, draw_network_figures
from vision_transfer.tasks.explain.images import NamedImage
from vision_transfer.tasks.explain.load import LoadedNetwork
from vision_transfer.tasks.explain.task import ExplainFlags, explain


@pytest.fixture
def image_file(tmp_path):
    path = tmp_path / "images" / "a cat $1.png"
    path.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def backbone_config(name="mnist_convnet", weights="random"):
    config = default_config()
    config.model.backbone, config.model.weights = name, weights
    config.dataset.name, config.dataset.channels = "embedded", 1
    config.dataset.image_size = 20
    return checked(with_stages(config, head=stage()))


def drawn(paths):
    """Names of the files, each of which is an image that is not blank."""
    for path in paths:
        with Image.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 1, path
    return {path.name for path in paths}


def test_teaching_figures_need_no_network(tmp_path, screen, image_file):
    flags = ExplainFlags(images=str(image_file), show="filter_banks,operations", out=tmp_path / "out")
    assert drawn(explain(flags, tmp_path, screen)) == {
        "filter_bank-sobel-a cat _1.png",
        "filter_bank-haar-a cat _1.png",
        "filter_bank-gabor-a cat _1.png",
        "operations-a cat _1.png",
    }


def test_a_backbone_alone_with_images_of_its_data_set(tmp_path, screen):
    flags = ExplainFlags(
        config=backbone_config(), show="activations,filters", layers="conv1", filters="0-1,5", out=tmp_path / "out"
    )
    names = drawn(explain(flags, tmp_path, screen))
    assert "filters-conv1-smooth.png" in names
    assert len(names) == 7 and all(name.startswith(("filters", "activations-")) for name in names)


@pytest.mark.parametrize(("show", "asked"), [("activations", 1), ("activations,grad_cam", 1), ("filters", 0)])
def test_likeliest_classes_are_calibrated_whatever_is_drawn(tmp_path, screen, image_file, monkeypatch, show, asked):
    """As in predict: they are printed for activations too."""
    network = Network(find_backbone("mnist_convnet").rows, head_layers(3, flatten=True), (36, 36, 3), "rescale")
    run = SimpleNamespace(
        network=network, variables=init(network, jax.random.key(0)), classes=("a", "b", "c"), config=backbone_config()
    )
    found, temperatures = SimpleNamespace(temperature=2.5), []
    asked_for = []
    monkeypatch.setattr(task, "load_run", lambda *_: run)
    monkeypatch.setattr(task, "calibration_of", lambda *_: asked_for.append(1) or found)
    monkeypatch.setattr(task, "draw_network_figures", lambda loaded, *_: temperatures.append(loaded.temperature) or [])
    explain(ExplainFlags(workdir=tmp_path, images=str(image_file), show=show), tmp_path, screen)
    assert len(asked_for) == asked and temperatures == [2.5 if asked else 1.0]


def test_broken_images_are_named_and_the_others_drawn(tmp_path, screen, image_file):
    (image_file.parent / "broken.png").write_bytes(b"\x89PNG\r\n")
    flags = ExplainFlags(images=str(image_file.parent), show="operations", out=tmp_path / "out")
    assert len(drawn(explain(flags, tmp_path, screen))) == 1
    said = screen.console.file.getvalue()
    assert "left out" in said and "broken.png" in said


def test_titles_say_when_a_heat_map_shows_nothing(tmp_path, screen, network, variables, monkeypatch):
    """Without weights nothing supports a class; a map of 2 × 2 hardly shows places."""
    titles = []
    monkeypatch.setattr(draw, "heat_figure", lambda image, heat, caption, title: titles.append(title))
    monkeypatch.setattr(draw, "superimpose", lambda pixels, heat: pixels)
    monkeypatch.setattr(draw, "save_image", lambda pixels, path: path)
    monkeypatch.setattr(draw, "save_png", lambda figure, path, resolution: path)
    classes = ("cat", "dog", "hen")[: max(2, network.outputs)]
    nothing = jax.tree.map(np.zeros_like, variables)
    image = NamedImage("p", np.random.default_rng(0).integers(0, 256, (12, 12, 2), dtype=np.uint8))
    for some in (nothing, variables):
        loaded = LoadedNetwork(network, some, classes, backbone_config(), tmp_path)
        draw_network_figures(loaded, Selection(["grad_cam", "smooth_grad"]), [image], tmp_path, screen)
    assert [title.split("\n")[2:] for title in titles] == [["nothing supports this class: 0 everywhere"]] * 2 + [[]] * 2
    assert draw._doubt(np.ones((2, 3))) == "\ntoo small a map to show places"


def test_layers_and_classes_that_do_not_exist(tmp_path, screen, network, variables):
    classes = ("cat", "dog", "hen")[: max(2, network.outputs)]
    loaded = LoadedNetwork(network, variables, classes, backbone_config(), tmp_path)
    image = NamedImage("p", np.zeros((15, 21, 2), np.uint8))
    for changes, message in (
        ({"target": "cta"}, "did you mean cat"),
        ({"layers": ("conv11",)}, "did you mean .*conv1"),
    ):
        with pytest.raises(UserError, match=message):
            draw_network_figures(loaded, Selection(["grad_cam"], **changes), [image], tmp_path, screen)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"show": "activation"}, "--show: got 'activation'; did you mean activations"),
        ({"show": "filters", "ascent": "plain"}, "--ascent: got 'plain'; known are smooth, textbook"),
        ({"show": "grad_cam"}, "needs a network"),
        ({"show": "operations"}, "needs images"),
        ({"show": "operations", "images": "nowhere.png"}, "no such file"),
        ({"config": True, "workdir": True}, "give one of them"),
        ({"config": True, "show": "grad_cam"}, "has no classes to explain"),
        ({"config": True, "show": "filters", "filters": "a-b"}, "--filters=a-b: cannot read 'a-b'"),
        ({"config": True, "show": "filters", "filters": "9-3"}, "names no filter"),
        ({"config": True, "show": "filters", "layers": "conv9"}, "no layer 'conv9' in this network; did you mean conv"),
        ({"config": True, "show": "filters", "filters": "99"}, "conv2 has no filter 99; it has 64"),
        ({"workdir": True}, "is not the folder of a run"),
    ],
)
def test_messages(tmp_path, screen, flags, message):
    filled = dict(flags)
    if "config" in flags:
        filled["config"] = backbone_config()
    if "workdir" in flags:
        filled["workdir"] = tmp_path / "run"
    with pytest.raises(UserError, match=message):
        explain(ExplainFlags(**{"out": tmp_path / "out", **filled}), tmp_path, screen)


def random_vgg16(architecture, *, include_classifier, shapes, **_):
    """Weights of the published shapes; most of the dense ones are zero, which takes neither time nor memory."""
    assert (architecture, include_classifier, shapes["fc1"]["kernel"]) == ("vgg16", True, (25088, 4096))
    random = np.random.default_rng(0)
    params = {}
    for layer, leaves in shapes.items():
        kernel = np.zeros(leaves["kernel"], np.float32)
        some = kernel if kernel.ndim == 4 else kernel[:: kernel.shape[0] // 256]
        some[:] = random.normal(0, np.sqrt(2 / np.prod(some.shape[:-1])), some.shape)
        params[layer] = {"kernel": kernel, "bias": np.zeros(leaves["bias"], np.float32)}
    return PretrainedWeights(params=params, source="a test", sha256="", preprocessing="caffe", licence="")


def test_vgg16_with_its_imagenet_classifier(tmp_path, screen, image_file, monkeypatch):
    """With random weights: the real ones are 553 MB."""
    monkeypatch.setattr("vision_transfer.models.load.load_pretrained", random_vgg16)
    config = backbone_config("vgg16", "imagenet")
    config = replace(config, dataset=replace(config.dataset, channels=3, image_size=224))
    flags = ExplainFlags(
        config=config, images=str(image_file), show="grad_cam", target="African_elephant", out=tmp_path / "out"
    )
    assert drawn(explain(flags, tmp_path, screen)) == {
        "grad_cam-a cat _1-block5_conv3.png",
        "grad_cam-a cat _1-block5_conv3-picture.png",
    }
    with Image.open(tmp_path / "out" / "grad_cam-a cat _1-block5_conv3-picture.png") as image:
        assert image.size == (44, 30)
    flags = replace(flags, config=replace(config, dataset=replace(config.dataset, image_size=180)))
    with pytest.raises(UserError, match="image_size: got 180; the ImageNet classifier of vgg16 takes 224"):
        explain(flags, tmp_path, screen)


def test_the_five_likeliest_classes_of_imagenet_are_drawn(tmp_path, screen, image_file, monkeypatch):
    """Lite0 with random weights and its own table, which has blocks and batch norms."""

    def drawn_at_random(architecture, *, include_classifier, shapes, **_):
        known = find_backbone(architecture)
        variables = init(Network(known.rows, known.classifier, (224, 224, 3)), jax.random.key(0))
        assert include_classifier and list(variables["params"]) == list(shapes)
        return PretrainedWeights(variables["params"], "a test", "", "lite", "", variables["batch_stats"])

    monkeypatch.setattr("vision_transfer.models.load.load_pretrained", drawn_at_random)
    config = backbone_config("efficientnet_lite0", "imagenet")
    config = replace(config, dataset=replace(config.dataset, channels=3, image_size=224))
    flags = ExplainFlags(config=config, images=str(image_file), show="grad_cam", out=tmp_path / "out")
    names = drawn(explain(flags, tmp_path, screen))
    assert len(names) == 10 and all(name.startswith("grad_cam-a cat _1-top_activation-") for name in names)


def test_the_weights_of_a_run_are_looked_at_in_its_folder(tmp_path, screen, image_file):
    """A config that starts from a run has no published weights, and would draw random ones."""
    config = replace(backbone_config("vgg16", "imagenet"), init_from="runs/mine")
    flags = ExplainFlags(config=config, images=str(image_file), show="activations", out=tmp_path / "out")
    with pytest.raises(UserError, match=r"config\.init_from: got 'runs/mine'; .* --workdir=runs/mine"):
        explain(flags, tmp_path, screen)


def test_many_maps_without_stages_and_pools_are_thinned_out():
    """A backbone of one's own with strided convolutions."""
    rows = tuple(Conv(f"strided{place}", 4, padding="same", strides=1 + (place < 3)) for place in range(14))
    network = Network(rows, (), (64, 64, 3))
    layers = draw.default_layers(network)
    assert len(layers) == draw.MOST_MAPS and layers[0] == "strided0" and layers[-1] == "strided13"
