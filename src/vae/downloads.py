"""Weights outside the repository: a given file, or the official download.

Downloads have a timeout, which neither torch nor torchvision sets.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from vae.errors import UserError

SOCKET_TIMEOUT = 30.0  # seconds without data


@dataclass(frozen=True)
class OfficialWeights:
    """Official weights of a network.

    digest     SHA-256 of the file, or its beginning
    setting    the param that names a file instead; `alternative`: another remedy
    """

    name: str
    url: str
    digest: str
    setting: str
    alternative: str


def fetch_official_weights(weights: OfficialWeights) -> Path:
    """The file in torch's folder, downloaded if it is missing; UserError if that fails.

    Only a download is compared with the digest, not a file that already exists.
    """
    from torch import hub

    file = Path(hub.get_dir(), "checkpoints", weights.url.rpartition("/")[2])
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with socket_timeout():
            bar = sys.stderr.isatty()
            hub.download_url_to_file(weights.url, str(file), weights.digest, progress=bar)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        raise UserError(
            f"no weights of {weights.name}: not there, and the download of {weights.url}"
            f" failed ({str(error) or type(error).__name__})",
            where=str(file),
            remedy="fetch that address on another machine, and put the file there or set "
            f"{weights.setting} to it; or {weights.alternative}",
        ) from None
    return file


def require_weights_file(name: str, path: Path, *, setting: str, expected: str) -> Path:
    """The file of a network's weights that a setting names; UserError if there is none."""
    if not Path(path).is_file():
        raise UserError(
            f"there is no file with weights of {name}",
            where=str(path),
            remedy=f"set {setting} to {expected}, or set none",
        )
    return Path(path)


@contextmanager
def socket_timeout() -> Iterator[None]:
    """Sockets opened inside fail after SOCKET_TIMEOUT without data."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
