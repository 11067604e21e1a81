"""Exit codes, error lines, signals, progress."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.runtime import console
from pipeline.runtime.paths import ROOT
from vae.errors import UserError

ERROR = UserError("wrong", where="here", remedy="mend it")
ERROR_LINE = "error: here: wrong -> mend it\n"


@pytest.fixture(autouse=True)
def restored_signal_handlers() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def exit_code(main: Callable[[], object]) -> int:
    with pytest.raises(SystemExit) as caught:
        console.run_command(main)  # type: ignore[arg-type]
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raises(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def terminate(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("main", "code", "line"),
    [
        (lambda: None, 0, ""),
        (raises(ERROR), 2, ERROR_LINE),
        (raises(KeyboardInterrupt()), 130, "interrupted\n"),
        (terminate, 143, ""),
        (
            raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sheet.png")),
            2,
            "error: sheet.png: No space left on device -> free some and run again\n",
        ),
    ],
)
def test_a_command_ends_with_its_code_and_line(
    main: Callable[[], object], code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(main) == code
    assert capsys.readouterr().err == line


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(PermissionError):
        console.run_command(raises(PermissionError(errno.EACCES, "no")))


def test_sigterm_waits_until_an_error_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "write_torchelastic_error", lambda line: terminate())
    assert exit_code(raises(ERROR)) == 143
    assert capsys.readouterr().err == ERROR_LINE


def test_a_closed_pipe_is_no_error() -> None:
    code = (
        "from pipeline.runtime.console import run_command; "
        "run_command(lambda: print('x' * 100_000))"
    )
    done = subprocess.run(
        ["bash", "-c", f'set -o pipefail; {sys.executable} -c "{code}" | head -c 1'],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}/src:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "x"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_end_of_a_deferring_block(number: int, code: int) -> None:
    done = []

    def main() -> None:
        with console.defer_signals():
            with console.defer_signals():
                terminate(number)
            done.append("inner")
        done.append("after")

    assert exit_code(main) == code
    assert done == ["inner"]


def test_a_second_signal_does_not_wait() -> None:
    done = []

    def main() -> None:
        with console.defer_signals():
            terminate()
            done.append("one")
            terminate()
            done.append("two")

    assert exit_code(main) == 128 + signal.SIGTERM
    assert done == ["one"]


def test_progress_yields_every_item_and_prints_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PROGRESS_SECONDS", -1.0)
    assert list(console.progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == [f"letters: {n} of 3" for n in (1, 2, 3)]


def test_tables_are_aligned() -> None:
    assert console.format_table([("a", "1"), ("long", "2")]) == "  a     1\n  long  2"


def test_another_environment_is_one_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(console, "ROOT", tmp_path)
    (tmp_path / ".venv").mkdir()
    assert exit_code(lambda: None) == 0
    warning = f"warning: running under {sys.prefix}, not under the project's .venv\n"
    assert capsys.readouterr().err == warning
