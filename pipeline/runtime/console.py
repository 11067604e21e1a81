"""The terminal: one-line errors with exit code 2, progress, tables.

A bar is drawn on a terminal; elsewhere (a log file, `dvc repro` in a pipe) progress is a plain
line now and then. `command` wraps the main function of every command. Of several processes of
torchrun the first speaks for all; what befell another one alone it says itself, with its rank.
"""

import errno
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from pipeline import ROOT
from pipeline.runtime.distributed import leave_word, place
from vae.errors import RankError, UserError

SECONDS_BETWEEN_LINES = 10.0
SECONDS_FOR_THE_FIRST = 20.0

Item = TypeVar("Item")


class Terminated(SystemExit):
    """SIGTERM as an exception, so that files are closed and the tracker's row is marked."""


class _Shield:
    """Whether a signal has to wait, and the one that does."""

    depth = 0
    waiting: int | None = None


def command(main: Callable[[], None]) -> NoReturn:
    """Run a command: UserError becomes one line and exit code 2, Ctrl-C exit code 130."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    try:
        _check_environment()
        main()
        sys.stdout.flush()
    except UserError as error:
        _tell(error)
        sys.exit(2)
    except BrokenPipeError:  # `| head` has seen enough; nothing may be flushed into it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        say(f"error: {error.filename or 'a file'}: {error.strerror} -> free some and run again")
        sys.exit(2)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    sys.exit(0)


def _tell(error: UserError) -> None:
    where, alone = place(), isinstance(error, RankError)
    with undisturbed():  # torchrun ends all when one is gone, and can't read half a file
        leave_word(f"error: {error}")
        if alone and where.size > 1:
            say(f"rank {where.rank}: error: {error}")
        elif where.rank == 0:
            say(f"error: {error}")
    if where.rank and not alone:
        # The first has the same error; were this one to end before, torchrun would silence it.
        time.sleep(SECONDS_FOR_THE_FIRST)


def _on_signal(number: int, frame: FrameType | None) -> None:
    """Raise, or wait for the end of `undisturbed`; a second signal does not wait."""
    if _Shield.depth and _Shield.waiting is None:
        _Shield.waiting = number
        return
    _raise(number)


def _raise(number: int) -> NoReturn:
    _Shield.waiting = None
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(128 + number)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect at the end of the block.

    For libraries that do not expect an exception just anywhere, in their imports and
    transactions.
    """
    _Shield.depth += 1
    try:
        yield
    finally:
        _Shield.depth -= 1
        if not _Shield.depth and _Shield.waiting is not None:
            _raise(_Shield.waiting)


def _check_environment() -> None:
    own = ROOT / ".venv"
    if place().rank == 0 and own.exists() and Path(sys.prefix).resolve() != own.resolve():
        warn(f"running under {sys.prefix}, not under the project's .venv")


def say(text: str) -> None:
    """One line for the person, on standard error, above any bar."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    say(f"warning: {text}")


def progress(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    """Pass items on and show how far they are."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, file=sys.stderr, leave=False)
        return
    last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"{label}: {count} of {total}" if total else f"{label}: {count}")


@contextmanager
def bar(total: int, label: str, initial: int = 0) -> Iterator[Callable[[], object]]:
    """A bar on a terminal, nothing elsewhere; yields the function that moves it by one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, initial=initial, file=sys.stderr, leave=False) as shown:
        yield shown.update


def table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
