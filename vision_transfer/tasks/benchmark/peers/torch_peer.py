"""The worker of a case in PyTorch, eager, with its defaults; run by an interpreter that has it.

To be fair to PyTorch: the batch is a preprocessed float32 tensor on the device; images and kernels are in the
`channels_last` layout, which PyTorch recommends for convolutions; inference is in `inference_mode`; gradients
are set to None between steps; frozen parameters have `requires_grad` off, so that no gradient of them is computed.
"""

import math
from typing import Any

from vision_transfer.tasks.benchmark.protocol import Work, serve

RATE = 1e-6
RMSPROP_DECAY, EPSILON = 0.9, 1e-7


def build(request: dict[str, Any]) -> Work:
    """Builds the model of a request from its layer table and warms it up."""
    import torch  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = _model(torch.nn, request).to(device, memory_format=torch.channels_last)
    batch, outputs = request["batch"], request["outputs"]
    *map_shape, channels = request["input_shape"]
    inputs = torch.randn(batch, channels, *map_shape, device=device)
    if inputs.ndim == 4:
        inputs = inputs.to(memory_format=torch.channels_last)
    labels = torch.arange(batch, device=device) % max(2, outputs)
    loss_of = torch.nn.functional.cross_entropy
    if outputs == 1:
        labels, loss_of = labels[:, None].float(), torch.nn.functional.binary_cross_entropy_with_logits
    optimizer = _optimizer(torch, request["optimizer"], model)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=request["precision"] == "bfloat16")

    def forward() -> None:
        with torch.inference_mode(), autocast:
            model(inputs)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = model(inputs)
        loss_of(logits.float(), labels).backward()
        optimizer.step()

    model.train(request["work"] == "step")
    work = forward if request["work"] == "forward" else step

    def run(times: int) -> None:
        for _ in range(times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    run(2)
    return run, {"device": device.type, "library": f"torch {torch.__version__}"}, dict


def _model(nn: Any, request: dict[str, Any]) -> Any:
    shape = tuple(request["input_shape"])
    modules = []
    for row in request["layers"]:
        made, shape = _modules(nn, row, shape)
        for module in made:
            module.requires_grad_(row["name"] in request["trainable"])
        modules += made
    return nn.Sequential(*modules)


def _optimizer(torch: Any, name: str, model: Any) -> Any:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match name:
        case "rmsprop":
            return torch.optim.RMSprop(parameters, RATE, alpha=RMSPROP_DECAY, eps=EPSILON)
        case "adam":
            return torch.optim.Adam(parameters, RATE, eps=EPSILON)
        case _:
            return torch.optim.SGD(parameters, RATE)


def _modules(nn: Any, row: dict[str, Any], shape: tuple[int, ...]) -> tuple[list[Any], tuple[int, ...]]:
    """The modules of a layer and the shape after it, channels last as in the table."""
    activation = [nn.ReLU()] if row.get("activation") == "relu" else []
    match row["kind"]:
        case "Conv":
            height, width, channels = shape
            size, features = row["kernel_size"], row["features"]
            lost = size - 1 if row["padding"] == "valid" else 0
            module = nn.Conv2d(channels, features, size, padding=row["padding"])
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
            return [module, *activation], (height - lost, width - lost, features)
        case "MaxPool":
            size = row["size"]
            return [nn.MaxPool2d(size)], (shape[0] // size, shape[1] // size, shape[2])
        case "BatchNorm":
            kind = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
            return [kind(shape[-1], eps=row["epsilon"], momentum=1 - row["momentum"]), *activation], shape
        case "GlobalAveragePool":
            return [nn.AdaptiveAvgPool2d(1), nn.Flatten()], shape[-1:]
        case "Flatten":
            return [nn.Flatten()], (math.prod(shape),)
        case "Dense":
            return [nn.Linear(shape[0], row["features"]), *activation], (row["features"],)
        case "Dropout":
            return [nn.Dropout(row["rate"])], shape
    raise ValueError(f"a layer of unknown kind: {row}")


if __name__ == "__main__":
    serve(build)
