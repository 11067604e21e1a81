"""Downloads give up: neither torch nor torchvision sets a time limit on a silent server."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 30.0  # seconds that a server may be silent


@contextmanager
def impatient() -> Iterator[None]:
    """Sockets opened inside fail after that silence, and do not hang for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
