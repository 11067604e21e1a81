"""Exit codes and lines."""

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


@pytest.fixture(autouse=True)
def own_signal_handler() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def ends(main: Callable[[], None]) -> int:
    with pytest.raises(SystemExit) as caught:
        console.run_command(main)
    assert isinstance(caught.value.code, int)
    return caught.value.code


def raises(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def test_a_good_end_is_zero() -> None:
    assert ends(lambda: None) == 0


def test_a_user_error_is_one_line_and_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert ends(raises(UserError("wrong", where="here", remedy="mend it"))) == 2
    assert capsys.readouterr().err == "error: here: wrong -> mend it\n"


def test_sigterm_waits_until_an_error_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    left = []

    def interrupted(line: str) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        left.append(line)

    monkeypatch.setattr(console, "write_torchelastic_error", interrupted)
    assert ends(raises(UserError("wrong", where="here", remedy="mend it"))) == 143
    assert left == ["error: here: wrong -> mend it"]
    assert capsys.readouterr().err == "error: here: wrong -> mend it\n"


def test_a_full_disk_anywhere_is_one_line_and_two(capsys: pytest.CaptureFixture[str]) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "sheet.png")
    assert ends(raises(full)) == 2
    assert capsys.readouterr().err == (
        "error: sheet.png: No space left on device -> free some and run again\n"
    )


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    code = "from pipeline.runtime.console import run_command; run_command(lambda: print('x' * 100_000))"
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


def test_other_errors_are_not_swallowed() -> None:
    with pytest.raises(PermissionError):
        console.run_command(raises(PermissionError(errno.EACCES, "no")))


def test_interrupts_and_sigterm_have_their_codes() -> None:
    assert ends(raises(KeyboardInterrupt())) == 130
    assert ends(lambda: os.kill(os.getpid(), signal.SIGTERM)) == 128 + signal.SIGTERM


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_waits_for_the_end_of_an_undisturbed_block(number: int, code: int) -> None:
    done = []

    def main() -> None:
        with console.defer_signals():
            with console.defer_signals():
                os.kill(os.getpid(), number)
            done.append("inner")
        done.append("after")

    assert ends(main) == code
    assert done == ["inner"]


def test_a_second_signal_does_not_wait() -> None:
    done = []

    def main() -> None:
        with console.defer_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("one")
            os.kill(os.getpid(), signal.SIGTERM)
            done.append("two")

    assert ends(main) == 128 + signal.SIGTERM
    assert done == ["one"]


def test_progress_passes_everything_on_and_prints_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "PROGRESS_SECONDS", -1.0)
    assert list(console.progress(iter("abc"), 3, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == [f"letters: {n} of 3" for n in (1, 2, 3)]


def test_tables_are_aligned() -> None:
    assert console.format_table([("a", "1"), ("long", "2")]) == "  a     1\n  long  2"


def test_another_environment_is_named_in_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(console, "ROOT", tmp_path)
    assert ends(lambda: None) == 0
    assert capsys.readouterr().err == ""
    (tmp_path / ".venv").mkdir()
    assert ends(lambda: None) == 0
    assert capsys.readouterr().err == (
        f"warning: running under {sys.prefix}, not under the project's .venv\n"
    )
