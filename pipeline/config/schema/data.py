"""The section `data`: the data set, its preparation and its splits."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.schema.types import Fraction, NonNegativeInt, Section
from vae.io import json_digest

DATA_SETS = "digits | fashion_mnist | cifar10 | celeba | folder"


class _DataSource(Section):
    root: str
    """folder of the raw data, relative to the project; the variable VAE_DATA_ROOT overrides it"""
    binarize: Literal["none", "static", "dynamic"]
    """none | static = draw each pixel once, 1 with probability k/255 | dynamic = at every step"""

    def request_digest(self) -> str:
        """Digest of the requested data; the folder of the raw files is not part of it."""
        return json_digest(self.model_dump(mode="json", exclude={"root"}))


class _SplitSource(_DataSource):
    valid_fraction: Fraction
    """fraction of the training images held out for validation"""
    seed: NonNegativeInt
    """seed of the random split"""


class DigitsData(_SplitSource):
    name: Literal["digits"] = Field(description=DATA_SETS)
    test_fraction: Fraction
    """fraction of all images held out for the test; this data set has no official test split"""


class OfficialSplitData(_SplitSource):
    name: Literal["fashion_mnist", "cifar10"] = Field(description=DATA_SETS)


class CelebaData(_DataSource):
    name: Literal["celeba"] = Field(description=DATA_SETS)
    crop: Literal["offset_128", "centre_140", "centre_148"]
    """offset_128 = rows 45:173, columns 25:153 | centre_140, centre_148 = central squares"""
    size: Annotated[int, Field(ge=8)]
    """side after resizing, in pixels"""
    max_broken: NonNegativeInt
    """unreadable images allowed; each is reported and skipped, one more is an error"""


class FolderData(_SplitSource):
    name: Literal["folder"] = Field(description=DATA_SETS)
    path: str
    """folder of images, relative to `root` or absolute; its subfolders are classes"""
    channels: Literal[1, 3]
    """1 = grey | 3 = colour; every image is converted"""
    centre_crop: bool
    """crop the largest central square first"""
    size: Annotated[int, Field(ge=8)] | None
    """side after resizing, in pixels; null = keep the size, which must be equal for all images"""
    test_fraction: Fraction
    """fraction of all images held out for the test"""
    max_broken: NonNegativeInt
    """unreadable images allowed; each is reported and skipped, one more is an error"""


Data = Annotated[
    DigitsData | OfficialSplitData | CelebaData | FolderData,
    Field(discriminator="name"),
]
