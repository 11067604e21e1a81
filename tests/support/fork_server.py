"""Python commands of a checkout, each in a process forked from one that has the heavy imports.

Most of a tiny command's seconds are imports: torch with the compiler that its optimisers load,
and MLflow. The nursery pays them once in a process without any of the project's modules; each
command is a fork of it, a process of its own with its folder, environment, arguments, streams
and exit code, that imports `vae` and `pipeline` anew from the checkout. Where the start of Python
itself is the law under test, `Checkout.start` and `dvc` make real ones.

Not guaranteed: a module that reads the environment as it is imported (torch, MLflow) saw the
nursery's. No thread may run before a fork, which the nursery checks.
"""

import atexit
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

THREAD_SETTINGS = {
    "OMP_WAIT_POLICY": "passive"
}  # two tests share the cores: who waits shall not spin
HEAVY_MODULES = ("torch._dynamo", "torchvision", "mlflow.store.tracking.sqlalchemy_store")
HEAVY_MODULES += ("matplotlib.pyplot", "pandas", "plotly.graph_objects", "pydantic", "ruamel.yaml")


def run(arguments: tuple[str, ...], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Exit code (negative: the signal) and output of `python ARGUMENTS` in a folder."""
    with tempfile.NamedTemporaryFile("r") as output:
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": environment,
            "output": output.name,
        }
        server = _start_server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(request) + "\n")
        server.stdin.flush()
        answer = server.stdout.readline()
        assert answer, "the nursery died"
        return int(answer), output.read()


@cache
def _start_server() -> "subprocess.Popen[str]":
    """The process that forks; it ends when its standard input does, at the latest with this."""
    from pipeline.tracking.backend import MLFLOW_ENVIRONMENT

    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("VAE_", "MLFLOW_", "PYTHON"))
    }
    server = subprocess.Popen(
        [sys.executable, __file__],
        env=environment | MLFLOW_ENVIRONMENT | THREAD_SETTINGS,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    atexit.register(server.communicate)
    return server


def serve() -> None:
    """Fork for every line of standard input, and answer with the child's exit code."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a package prints as it is imported is no answer
    for name in HEAVY_MODULES:
        __import__(name)
    del sys.path[0]  # this script's folder
    for line in iter(sys.stdin.readline, ""):
        assert threading.active_count() == 1, threading.enumerate()
        child = os.fork()
        if not child:
            answers.close()
            run_to_exit(**json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)


def run_to_exit(**request: Any) -> NoReturn:
    """Run a command to its end, the exit functions included, without taking packages apart."""
    code: int | str | None = 0
    try:
        exec_python(**request)
    except SystemExit as system_exit:
        code = system_exit.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def exec_python(
    arguments: list[str], folder: str, environment: dict[str, str], output: str
) -> None:
    """Be `python ARGUMENTS` with these surroundings, to the end of its main module."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    streams = (os.open(os.devnull, os.O_RDONLY), os.open(output, os.O_WRONLY | os.O_APPEND))
    for source, target in ((streams[0], 0), (streams[1], 1), (streams[1], 2)):
        os.dup2(source, target)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = [folder, *environment["PYTHONPATH"].split(os.pathsep)]
    kind, rest = arguments[0], arguments[1:]
    if kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.argv = list(arguments)
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    serve()
