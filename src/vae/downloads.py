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

PATIENCE = 30.0  # seconds that a server may be silent


@dataclass(frozen=True)
class Official:
    """What the makers of a network offer.

    digest     SHA-256 of the file, or its beginning
    setting    what takes a file in its place; `instead` what else to choose
    """

    name: str
    address: str
    digest: str
    setting: str
    instead: str


def official_file(official: Official) -> Path:
    """The file in torch's folder, downloaded unless it is there; UserError if that cannot be.

    The digest is that of the download: a file that is there is taken as it is.
    """
    from torch import hub

    file = Path(hub.get_dir(), "checkpoints", official.address.rpartition("/")[2])
    if file.is_file():
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with impatient():
            bar = sys.stderr.isatty()
            hub.download_url_to_file(official.address, str(file), official.digest, progress=bar)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        raise UserError(
            f"no weights of {official.name}: not there, and the download of {official.address}"
            f" failed ({str(error) or type(error).__name__})",
            where=str(file),
            remedy="fetch that address on another machine, and put the file there or set "
            f"{official.setting} to it; or {official.instead}",
        ) from None
    return file


def given_file(name: str, given: Path, *, setting: str, wanted: str) -> Path:
    """The file of a network's weights that a setting names; UserError if there is none."""
    if not Path(given).is_file():
        raise UserError(
            f"there is no file with weights of {name}",
            where=str(given),
            remedy=f"set {setting} to {wanted}, or set none",
        )
    return Path(given)


@contextmanager
def impatient() -> Iterator[None]:
    """Sockets opened inside fail after that silence, and do not hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
