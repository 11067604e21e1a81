"""Weights that the repository does not hold: a file that is given, or the official one.

Downloads give up: neither torch nor torchvision sets a time limit on a silent server.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from vae.errors import UserError

SOCKET_TIMEOUT = 30.0  # seconds that a server may be silent


@dataclass(frozen=True)
class OfficialWeights:
    """What the makers of a network offer.

    digest     SHA-256 of the file, or its beginning
    setting    what takes a file in its place; `alternative` what else to choose
    """

    name: str
    url: str
    digest: str
    setting: str
    alternative: str


def fetch_official_weights(weights: OfficialWeights) -> Path:
    """The file in torch's folder, downloaded unless it is there; UserError if that cannot be.

    The digest is that of the download: a file that is there is taken as it is.
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
    """Sockets opened inside fail after that silence, and do not hang for ever."""
    previous = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(previous)
