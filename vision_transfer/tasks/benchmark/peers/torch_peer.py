"""The worker of a case in PyTorch, eager or after `torch.compile`; run by an interpreter that has it.

To be fair to PyTorch: the batch is a preprocessed float32 tensor on the device; images and kernels are in the
`channels_last` layout, which PyTorch recommends for convolutions; inference is in `inference_mode`; gradients
are set to None between steps; frozen parameters have `requires_grad` off, so that no gradient of them is computed;
bfloat16 is automatic mixed precision (`autocast`), and cuDNN may choose its algorithms by timing.
"""

import math
import operator
from functools import partial, reduce
from typing import Any

from vision_transfer.tasks.benchmark.protocol import Work, serve

RATE = 1e-6
RMSPROP_DECAY, EPSILON = 0.9, 1e-7
MAP_RANK = 3
MERGES = {"add": operator.add, "multiply": operator.mul}


def build(request: dict[str, Any]) -> Work:
    """Builds the model of a request from its layer table and warms it up."""
    import torch  # pyright: ignore[reportMissingImports, reportMissingModuleSource]

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    # PyTorch's default lets convolutions of float32 round to TF32, but not matrix products
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = request["precision"] == "tf32"
    fixed: list[Any] = []
    model = _sequence(torch, request, request["layers"], fixed).to(device, memory_format=torch.channels_last)
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
    called = torch.compile(model) if request["variant"] == "compile" else model
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=request["precision"] == "bfloat16")

    def forward() -> None:
        with torch.inference_mode(), autocast:
            called(inputs)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            logits = called(inputs)
        loss_of(logits.float(), labels).backward()
        optimizer.step()

    model.train(request["work"] == "step")
    for norm in fixed:
        norm.eval()
    work = forward if request["work"] == "forward" else step

    def run(times: int) -> None:
        for _ in range(times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize()

    def last_facts() -> dict[str, Any]:
        return {"device_memory_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda" else None}

    run(2)
    library = " ".join(filter(None, ("torch", torch.__version__, request["variant"])))
    return run, {"device": device.type, "library": library}, last_facts


def _sequence(torch: Any, request: dict[str, Any], rows: list[dict[str, Any]], fixed: list[Any]) -> Any:
    """The module of rows; enters batch norms that keep their statistics into `fixed`."""
    modules = []
    for row in rows:
        if row["kind"] == "Block":
            branches = [_sequence(torch, request, branch, fixed) for branch in row["branches"]]
            modules.append([_block(torch, branches, row["merge"]["kind"])])
            continue
        made = [] if row["kind"] == "PoolLayers" else modules_of_row(torch.nn, row)
        for module in made:
            module.requires_grad_(row["name"] in request["trainable"])
        modules.append(made)
        if row["kind"] == "BatchNorm" and row["name"] in request["inference_layers"]:
            fixed.append(made[0])
    if any(row["kind"] == "PoolLayers" for row in rows):
        return _pooling(torch, rows, [torch.nn.Sequential(*made) for made in modules])
    return torch.nn.Sequential(*(module for made in modules for module in made))


def _pooling(torch: Any, rows: list[dict[str, Any]], modules: list[Any]) -> Any:
    """The module of rows of which some pool the outputs of earlier ones."""

    class Pooling(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = torch.nn.ModuleList(modules)

        def forward(self, values: Any) -> Any:
            outputs = {}
            for row, module in zip(rows, self.rows, strict=True):
                if row["kind"] == "PoolLayers":
                    values = torch.cat(cell_means(torch, outputs, row), 1)
                else:
                    values = module(values)
                outputs[row["name"]] = values
            return values

    return Pooling()


def cell_means(torch: Any, outputs: dict[str, Any], row: dict[str, Any]) -> list[Any]:
    """The means over the cells of a grid on each pooled map, channels last in each cell."""
    means = []
    for name, windows in zip(row["layers"], row["windows"], strict=True):
        _, sizes, strides = zip(*windows, strict=True)
        cells = torch.nn.functional.avg_pool2d(outputs[name], tuple(sizes), tuple(strides))
        means.append(cells.permute(0, 2, 3, 1).flatten(1))
    return means


def _block(torch: Any, branches: list[Any], merge: str) -> Any:
    """The module that computes branches of one input and merges their outputs."""

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branches = torch.nn.ModuleList(branches)

        def forward(self, inputs: Any) -> Any:
            outputs = [branch(inputs) for branch in self.branches]
            return torch.cat(outputs, 1) if merge == "concat" else reduce(MERGES[merge], outputs)

    return Block()


def _optimizer(torch: Any, name: str, model: Any) -> Any:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    match name:
        case "rmsprop":
            return torch.optim.RMSprop(parameters, RATE, alpha=RMSPROP_DECAY, eps=EPSILON)
        case "adam":
            return torch.optim.Adam(parameters, RATE, eps=EPSILON)
        case _:
            return torch.optim.SGD(parameters, RATE)


def modules_of_row(nn: Any, row: dict[str, Any]) -> list[Any]:
    """The modules of a row that is no block; shapes before it are channels last, as in the table."""
    channels = row["before"][-1]
    activation = _activation(nn, row.get("activation", "linear"))
    match row["kind"]:
        case "Conv" | "DepthwiseConv" | "SeparableConv":
            return [*_convolutions(nn, row, channels), *activation]
        case "MaxPool":
            zeros, padding = _padding(row["zeros"], partial(nn.ConstantPad2d, value=-math.inf))
            return [*zeros, nn.MaxPool2d(row["size"], row["strides"], padding)]
        case "AveragePool":
            return [nn.AvgPool2d(row["size"])]
        case "ZeroPad":
            return [nn.ZeroPad2d(_sides(row["zeros"]))]
        case "BatchNorm":
            kind = nn.BatchNorm2d if len(row["before"]) == MAP_RANK else nn.BatchNorm1d
            return [kind(channels, eps=row["epsilon"], momentum=1 - row["momentum"]), *activation]
        case "Activate":
            return activation
        case "GlobalAveragePool":
            return [nn.AdaptiveAvgPool2d(1), *([] if row["keep_axes"] else [nn.Flatten()])]
        case "Flatten" | "Dropout":
            return [nn.Flatten() if row["kind"] == "Flatten" else nn.Dropout(row["rate"])]
        case "Dense":
            return [nn.Linear(channels, row["features"]), *activation]
    raise ValueError(f"a layer of unknown kind: {row}")


def _convolutions(nn: Any, row: dict[str, Any], channels: int) -> list[Any]:
    zeros, padding = _padding(row["zeros"], nn.ZeroPad2d)
    size, stride, bias = row["kernel_size"], row.get("strides", 1), row["bias"]
    match row["kind"]:
        case "Conv":
            return [*zeros, _initialised(nn, channels, row["features"], size, stride, padding, bias=bias)]
        case "DepthwiseConv":
            return [*zeros, _initialised(nn, channels, channels, size, stride, padding, groups=channels, bias=bias)]
        case _:
            depthwise = _initialised(nn, channels, channels, size, stride, padding, groups=channels, bias=False)
            return [*zeros, depthwise, _initialised(nn, channels, row["features"], 1, bias=bias)]


def _activation(nn: Any, name: str) -> list[Any]:
    modules = {"relu": nn.ReLU, "relu6": nn.ReLU6, "swish": nn.SiLU, "sigmoid": nn.Sigmoid}
    return [] if name == "linear" else [modules[name]()]


def _initialised(nn: Any, *arguments: Any, **options: Any) -> Any:
    convolution = nn.Conv2d(*arguments, **options)
    nn.init.xavier_uniform_(convolution.weight)
    if convolution.bias is not None:
        nn.init.zeros_(convolution.bias)
    return convolution


def _padding(zeros: Any, pad: Any) -> tuple[list[Any], tuple[int, int]]:
    """A module that pads, and what its layer pads itself: all where both sides are equal, else nothing."""
    (top, bottom), (left, right) = zeros
    if top == bottom and left == right:
        return [], (top, left)
    return [pad(_sides(zeros))], (0, 0)


def _sides(zeros: Any) -> tuple[int, int, int, int]:
    """Numbers of zeros in PyTorch's order."""
    (top, bottom), (left, right) = zeros
    return left, right, top, bottom


if __name__ == "__main__":
    serve(build)
