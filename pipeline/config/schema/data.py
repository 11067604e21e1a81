"""The section `data`: what is learned."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema.types import Index, Section, Share

SETS = "digits | fashion_mnist | cifar10 | celeba | folder"


class _Source(Section):
    root: str
    """folder of the raw data, from the project's folder on; VAE_DATA_ROOT overrides it"""
    binarize: Literal["none", "static", "dynamic"]
    """none | static = each pixel drawn once, 1 with probability k/255 | dynamic = at each step"""


class _Split(_Source):
    valid_share: Share
    """share of the training images that is held out for validation"""
    seed: Index
    """of the split"""


class DigitsData(_Split):
    name: Literal["digits"] = Field(description=SETS)
    test_share: Share
    """share of all images that is held out for the test; this set has no official test split"""


class FashionMnistData(_Split):
    name: Literal["fashion_mnist"] = Field(description=SETS)


class Cifar10Data(_Split):
    name: Literal["cifar10"] = Field(description=SETS)


class CelebaData(_Source):
    name: Literal["celeba"] = Field(description=SETS)
    crop: Literal["offset_128", "centre_140", "centre_148"]
    """offset_128 = rows 45:173, columns 25:153; centre_140, centre_148 = central squares"""
    size: Annotated[int, Field(ge=8)]
    """pixels a side after resizing"""
    max_broken: Index
    """images that may be unreadable; each is named and skipped, one more is an error"""


class FolderData(_Split):
    name: Literal["folder"] = Field(description=SETS)
    path: str
    """directory of images, from `root` on (or absolute); its sub-folders are classes"""
    channels: Literal[1, 3]
    """1 = grey, 3 = colour; every image is converted"""
    centre_crop: bool
    """cut the largest central square out first"""
    size: Annotated[int, Field(ge=8)] | None
    """pixels a side after resizing; null keeps the size, which must then be one for all"""
    test_share: Share
    """share of all images that is held out for the test"""
    max_broken: Index
    """images that may be unreadable; each is named and skipped, one more is an error"""


Data = Annotated[
    DigitsData | FashionMnistData | Cifar10Data | CelebaData | FolderData,
    Field(discriminator="name"),
]
