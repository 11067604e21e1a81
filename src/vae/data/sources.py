"""The data sets by name: layout, checksums, download, preparation, licence.

`find` returns canonical names and paths of the raw files, `fetch` downloads missing ones, `verify`
compares them with the official SHA-256, and `decode` reads them. A missing set is an error.

Checksums are those of the decompressed content. `celeba` and `folder` have none: a subset of
CelebA is allowed, and its official checksums are of the archive. `digits` is part of scikit-learn.
This module imports neither torch nor scikit-learn nor Pillow; a download imports torchvision.
"""

import http.client
import tarfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae.data import readers
from vae.data.readers import Files, MissingDataError, RawDataset
from vae.downloads import socket_timeout
from vae.errors import UserError

if TYPE_CHECKING:
    from vae.data.preparation import Recipe


@dataclass(frozen=True)
class Source:
    """A data set. `find(root, path)` raises MissingDataError; `decode(files)` raises UserError."""

    title: str
    licence: str
    citation: str
    layout: str
    find: Callable[[Path, str], Files]
    decode: Callable[[Files], RawDataset]
    channels: int | None = None
    pixels: str = "as they are"
    checksums: Mapping[str, str] = field(default_factory=dict)
    download: Callable[[Path], object] | None = None
    recipe: Callable[[Mapping[str, Any]], "Recipe"] | None = None


def get_source(name: str) -> Source:
    """The source of that name; ValueError lists the known names."""
    if name not in SOURCES:
        raise ValueError(f"no data set {name!r}; choose one of: {', '.join(SOURCES)}")
    return SOURCES[name]


def find(name: str, root: Path, path: str = "") -> Files:
    """The raw files under `root` (of `folder`: under its `path`), or MissingDataError."""
    source = get_source(name)
    try:
        return source.find(Path(root), path)
    except MissingDataError as missing:
        raise MissingDataError(
            f"{source.title}: {missing.what}",
            where=missing.where,
            remedy=f"put {source.layout} there, or set VAE_DATA_ROOT to the folder that has them",
        ) from None


def fetch(name: str, root: Path, path: str = "") -> Files:
    """The raw files, downloaded if missing; UserError if that fails.

    The download shows a progress bar and checks the official checksums.
    """
    source = get_source(name)
    try:
        return find(name, root, path)
    except MissingDataError as missing:
        if source.download is None:
            raise
        failure = _download(source.download, Path(root))
        if failure is None:
            return find(name, root, path)
        raise UserError(
            f"{missing.what}, and the download failed ({failure})",
            where=missing.where,
            remedy=missing.remedy,
        ) from None


def _download(download: Callable[[Path], object], root: Path) -> str | None:
    """Download into root; the error message, or None."""
    with socket_timeout():
        try:
            root.mkdir(parents=True, exist_ok=True)
            download(root)
        except (OSError, RuntimeError, EOFError) as error:
            return str(error) or type(error).__name__
        except (http.client.HTTPException, tarfile.TarError, zlib.error) as error:
            return str(error) or type(error).__name__
    return None


def verify(name: str, files: Files, digests: Mapping[str, str]) -> None:
    """Compare contents (hex SHA-256 by canonical name) with the official ones; UserError."""
    for file, expected in get_source(name).checksums.items():
        if digests[file] != expected:
            raise UserError(
                f"not the official file (SHA-256 {digests[file][:12]}..., not {expected[:12]}...)",
                where=str(files[file]),
                remedy="delete it; it is then downloaded again, or put the official file there",
            )


def decode(name: str, files: Files) -> RawDataset:
    """Read the raw files; image files of celeba and folder are only listed. UserError."""
    return get_source(name).decode(files)


def preparation_recipe(name: str, options: Mapping[str, Any]) -> "Recipe | None":
    """How the image files become arrays, by the set's `options`; None if it has arrays."""
    recipe = get_source(name).recipe
    return None if recipe is None else recipe(options)


def _celeba_recipe(options: Mapping[str, Any]) -> "Recipe":
    from vae.data.preparation import Recipe

    return Recipe(3, options["crop"], options["size"])


def _folder_recipe(options: Mapping[str, Any]) -> "Recipe":
    from vae.data.preparation import Recipe

    crop = "square" if options["centre_crop"] else "none"
    return Recipe(options["channels"], crop, options["size"])


def _download_fashion(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(root, download=True)


def _download_cifar(root: Path) -> None:
    from torchvision.datasets import CIFAR10

    CIFAR10(root, download=True)


FASHION_CHECKSUMS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
CIFAR_CHECKSUMS = {
    "data_batch_1": "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "data_batch_2": "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "data_batch_3": "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "data_batch_4": "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "data_batch_5": "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "test_batch": "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
    "batches.meta": "f962466ef690d46b226450fb9aadc74ba4bc64a76aa526b5827fe4bc5c7125cb",
}

SOURCES = {
    "digits": Source(
        title="Digits",
        licence="CC BY 4.0 (UCI machine learning repository)",
        citation="Alpaydin and Kaynak 1998, Optical recognition of handwritten digits",
        layout="scikit-learn",
        find=readers.find_digits,
        decode=readers.decode_digits,
        channels=1,
        pixels="levels k of 0..16 as round(k 255 / 16)",
    ),
    "fashion_mnist": Source(
        title="Fashion-MNIST",
        licence="MIT",
        citation="Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
        layout="the four official files, as .gz or extracted, into FashionMNIST/raw/",
        find=readers.find_fashion,
        decode=readers.decode_fashion,
        channels=1,
        checksums=FASHION_CHECKSUMS,
        download=_download_fashion,
    ),
    "cifar10": Source(
        title="CIFAR-10",
        licence="none stated; to be cited",
        citation="Krizhevsky 2009, Learning multiple layers of features from tiny images",
        layout="the extracted cifar-10-python.tar.gz as cifar-10-batches-py/",
        find=readers.find_cifar,
        decode=readers.decode_cifar,
        channels=3,
        checksums=CIFAR_CHECKSUMS,
        download=_download_cifar,
    ),
    "celeba": Source(
        title="CelebA (aligned)",
        licence="non-commercial research only",
        citation="Liu, Luo, Wang and Tang 2015, Deep learning face attributes in the wild",
        layout=(
            "img_align_celeba/NNNNNN.jpg and list_eval_partition.txt (by hand, in a browser, from "
            "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html)"
        ),
        find=readers.find_celeba,
        decode=readers.decode_celeba,
        recipe=_celeba_recipe,
        channels=3,
    ),
    "folder": Source(
        title="own images",
        licence="the owner's",
        citation="",
        layout="PNG, JPEG or WebP images (with one sub-folder per class if there are classes)",
        find=readers.find_folder,
        decode=readers.decode_folder,
        recipe=_folder_recipe,
    ),
}
