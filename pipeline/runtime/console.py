"""The terminal: one-line errors with exit code 2, progress, tables.

Progress is a bar on a terminal, elsewhere a plain line every `PROGRESS_SECONDS`. `run_command`
wraps the main function of every command. Only rank 0 prints; other ranks print only their own
errors.
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

from pipeline.runtime.distributed import current_rank, write_torchelastic_error
from pipeline.runtime.paths import ROOT
from vae.errors import RankError, UserError

PROGRESS_SECONDS = 10.0
RANK_ZERO_SECONDS = 20.0

Item = TypeVar("Item")


class Terminated(SystemExit):
    """SIGTERM as an exception, so that files are closed and MLflow gets the status."""


class _DeferredSignal:
    """Depth of nested `defer_signals` blocks, and the signal that waits."""

    nesting = 0
    pending: int | None = None


def run_command(main: Callable[[], None]) -> NoReturn:
    """Run a command: UserError becomes one line and exit code 2, Ctrl-C exit code 130."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _handle_signal)
    try:
        _check_environment()
        main()
        sys.stdout.flush()
    except UserError as error:
        _print_error(error)
        sys.exit(2)
    except BrokenPipeError:  # the reader (`| head`) has ended; nothing may be flushed at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        info(f"error: {error.filename or 'a file'}: {error.strerror} -> free some and run again")
        sys.exit(2)
    except KeyboardInterrupt:
        info("interrupted")
        sys.exit(130)
    sys.exit(0)


def _print_error(error: UserError) -> None:
    rank_info, own_error = current_rank(), isinstance(error, RankError)
    with defer_signals():  # torchrun terminates all ranks when one ends, and reads this file
        write_torchelastic_error(f"error: {error}")
        if own_error and rank_info.size > 1:
            info(f"rank {rank_info.rank}: error: {error}")
        elif rank_info.rank == 0:
            info(f"error: {error}")
    if rank_info.rank and not own_error:
        # Rank 0 has the same error; if this rank ended first, torchrun would terminate rank 0.
        time.sleep(RANK_ZERO_SECONDS)


def _handle_signal(number: int, frame: FrameType | None) -> None:
    """Raise, or wait for the end of `defer_signals`; a second signal does not wait."""
    if _DeferredSignal.nesting and _DeferredSignal.pending is None:
        _DeferredSignal.pending = number
        return
    _raise_signal(number)


def _raise_signal(number: int) -> NoReturn:
    _DeferredSignal.pending = None
    raise KeyboardInterrupt if number == signal.SIGINT else Terminated(128 + number)


@contextmanager
def defer_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect at the end of the block.

    For libraries whose imports and transactions an exception would leave incomplete.
    """
    _DeferredSignal.nesting += 1
    try:
        yield
    finally:
        _DeferredSignal.nesting -= 1
        if not _DeferredSignal.nesting and _DeferredSignal.pending is not None:
            _raise_signal(_DeferredSignal.pending)


def _check_environment() -> None:
    project_env = ROOT / ".venv"
    if (
        current_rank().rank == 0
        and project_env.exists()
        and Path(sys.prefix).resolve() != project_env.resolve()
    ):
        warn(f"running under {sys.prefix}, not under the project's .venv")


def info(text: str) -> None:
    """Print one line on standard error, above any bar."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr, flush=True)


def warn(text: str) -> None:
    info(f"warning: {text}")


def progress(items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
    """Yield the items and show the progress."""
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=label, file=sys.stderr, leave=False)
        return
    last = time.monotonic()
    for count, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > PROGRESS_SECONDS:
            last = time.monotonic()
            info(f"{label}: {count} of {total}" if total else f"{label}: {count}")


@contextmanager
def show_bar(total: int, label: str, initial: int = 0) -> Iterator[Callable[[], object]]:
    """A bar on a terminal, nothing elsewhere; yields the function that advances it by one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(
        total=total, desc=label, initial=initial, file=sys.stderr, leave=False
    ) as progress_bar:
        yield progress_bar.update


def format_table(rows: Sequence[tuple[str, str]]) -> str:
    """Two aligned columns."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"  {name:<{width}}  {value}" for name, value in rows)
