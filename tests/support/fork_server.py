"""Python commands of a checkout, each in a process forked from one that has the heavy imports.

Most of a tiny command's seconds are imports: torch with the compiler that its optimisers load,
and MLflow. `multiprocessing`'s fork server imports them once, in a process without any of the
project's modules; a command is a fork of it, with its own folder, environment, arguments, streams
and exit code, and imports `vae` and `pipeline` anew from the checkout. Where the start of Python
itself is under test, `Checkout.start` and `dvc` start real processes.

Not guaranteed: a module that reads the environment during its import (torch, MLflow) sees the
server's environment.
"""

import atexit
import multiprocessing
import os
import runpy
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

# Two tests share the cores, so waiting threads must not spin.
THREAD_SETTINGS = {"OMP_WAIT_POLICY": "passive"}
HEAVY_MODULES = ["torch._dynamo", "torchvision", "mlflow.store.tracking.sqlalchemy_store"]
HEAVY_MODULES += ["matplotlib.pyplot", "pandas", "plotly.graph_objects", "pydantic", "ruamel.yaml"]
OWN_PACKAGES = ("vae", "pipeline", "studies", "benchmarks", "tests")


def run(arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code (negative: the signal) and output of `python ARGUMENTS` in a folder."""
    with tempfile.NamedTemporaryFile("r") as output:
        process = _start_server().Process(
            target=_run_python, args=(arguments, str(folder), environment, output.name)
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        return process.exitcode, output.read()


@cache
def _start_server() -> ForkServerContext:
    """The context whose server has the heavy modules; the server ends with this process."""
    from pipeline.tracking.backend import MLFLOW_ENVIRONMENT

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY_MODULES)
    settings = {k: v for k, v in os.environ.items() if not k.startswith(("VAE_", "MLFLOW_"))}
    settings |= MLFLOW_ENVIRONMENT | THREAD_SETTINGS
    with mock.patch.dict(os.environ, settings, clear=True):
        forkserver.ensure_running()
    return context


def _run_python(
    arguments: tuple[str, ...], folder: str, environment: dict[str, str], output: str
) -> None:
    """Be `python ARGUMENTS` with these surroundings, to the end of its exit functions."""
    streams = (os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_APPEND))
    for source, target in ((streams[0], 0), (streams[1], 1), (streams[1], 2)):
        os.dup2(source, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    installed = [path for path in sys.path if path.startswith((sys.prefix, sys.base_prefix))]
    sys.path[:] = [folder, *environment["PYTHONPATH"].split(os.pathsep), *installed]
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN_PACKAGES]:
        del sys.modules[name]
    multiprocessing.set_start_method("fork", force=True)  # as in a process of its own
    try:
        _run_main(*arguments)
    finally:
        atexit._run_exitfuncs()


def _run_main(kind: str, *rest: str) -> None:
    if kind == "-m":
        sys.argv = [*rest]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = [kind, *rest]
        runpy.run_path(kind, run_name="__main__")
