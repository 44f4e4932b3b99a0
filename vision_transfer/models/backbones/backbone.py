"""All that is known about a backbone: its table, its published weights, and what its images need."""

from dataclasses import dataclass

from vision_transfer.models.layers import Row
from vision_transfer.models.preprocessing import Preprocessing
from vision_transfer.models.pretrained.releases import Release
from vision_transfer.models.pretrained.torch_names import TorchNames


@dataclass(frozen=True)
class Backbone:
    """A line of the registry.

    Attributes:
        rows: its table.
        batch_norm_rows: its table with a batch norm between each convolution and its activation; empty if it has
            no such form.
        releases: its published weights, which take RGB images; empty if there are none.
        torch_names: the names of its layers in PyTorch libraries whose network is the same; empty if there are none.
        classifier: the rows after it in the releases that include the classifier for ImageNet's 1,000 classes.
        preprocessing: what its images need unless the weights or the config say otherwise.
        image_size: height and width of the images that its weights were trained on.
        fine_tune_from: stage from which recipes train it ("the last stage"); empty if it has no convolutions.
    """

    rows: tuple[Row, ...]
    batch_norm_rows: tuple[Row, ...] = ()
    releases: tuple[Release, ...] = ()
    torch_names: tuple[TorchNames, ...] = ()
    classifier: tuple[Row, ...] = ()
    preprocessing: Preprocessing = "rescale"
    image_size: int = 224
    fine_tune_from: str = ""
