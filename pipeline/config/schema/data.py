"""The section `data`: what is learned."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema.types import Fraction, NonNegativeInt, Section

DATA_SETS = "digits | fashion_mnist | cifar10 | celeba | folder"


class _DataSource(Section):
    root: str
    """folder of the raw data, from the project's folder on; VAE_DATA_ROOT overrides it"""
    binarize: Literal["none", "static", "dynamic"]
    """none | static = each pixel drawn once, 1 with probability k/255 | dynamic = at each step"""


class _SplitSource(_DataSource):
    valid_fraction: Fraction
    """share of the training images that is held out for validation"""
    seed: NonNegativeInt
    """of the split"""


class DigitsData(_SplitSource):
    name: Literal["digits"] = Field(description=DATA_SETS)
    test_fraction: Fraction
    """share of all images that is held out for the test; this set has no official test split"""


class FashionMnistData(_SplitSource):
    name: Literal["fashion_mnist"] = Field(description=DATA_SETS)


class Cifar10Data(_SplitSource):
    name: Literal["cifar10"] = Field(description=DATA_SETS)


class CelebaData(_DataSource):
    name: Literal["celeba"] = Field(description=DATA_SETS)
    crop: Literal["offset_128", "centre_140", "centre_148"]
    """offset_128 = rows 45:173, columns 25:153; centre_140, centre_148 = central squares"""
    size: Annotated[int, Field(ge=8)]
    """pixels a side after resizing"""
    max_broken: NonNegativeInt
    """images that may be unreadable; each is named and skipped, one more is an error"""


class FolderData(_SplitSource):
    name: Literal["folder"] = Field(description=DATA_SETS)
    path: str
    """directory of images, from `root` on (or absolute); its sub-folders are classes"""
    channels: Literal[1, 3]
    """1 = grey, 3 = colour; every image is converted"""
    centre_crop: bool
    """cut the largest central square out first"""
    size: Annotated[int, Field(ge=8)] | None
    """pixels a side after resizing; null keeps the size, which must then be one for all"""
    test_fraction: Fraction
    """share of all images that is held out for the test"""
    max_broken: NonNegativeInt
    """images that may be unreadable; each is named and skipped, one more is an error"""


Data = Annotated[
    DigitsData | FashionMnistData | Cifar10Data | CelebaData | FolderData,
    Field(discriminator="name"),
]
