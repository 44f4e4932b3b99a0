"""Where pretrained weights come from: sources, converters, verification by digest."""

from vision_transfer.models.pretrained.keras_h5 import write_keras_h5
from vision_transfer.models.pretrained.load import PretrainedWeights, load_pretrained
from vision_transfer.models.pretrained.tensors import tensors_sha256

__all__ = ["PretrainedWeights", "load_pretrained", "tensors_sha256", "write_keras_h5"]
