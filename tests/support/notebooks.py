"""Notebooks without Jupyter: their cells run in order in a process of their own.

    python -m tests.support.notebooks            write the outputs of every notebook anew

A cell is executed as Jupyter does it: what it prints is a stream, the value of its last expression
is shown, as a picture or a table where it has such a form. Warnings are errors. The outputs hold
no execution counts, times or addresses, so equal files of a run give equal notebooks.
"""

import ast
import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
FORMS = {"image/png": "_repr_png_", "text/html": "_repr_html_"}


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of code."""
    return [cell for cell in read(path)["cells"] if cell["cell_type"] == "code"]


def run(path: Path, environment: dict[str, str]) -> list[list[dict[str, Any]]]:
    """The outputs of each cell of code; AssertionError with the traceback of one that fails."""
    with tempfile.NamedTemporaryFile("r") as answer:
        command = [sys.executable, "-W", "error", __file__, path.name, answer.name]
        done = subprocess.run(
            command, cwd=path.parent, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, f"{path.name}:\n{done.stderr}"
        outputs: list[list[dict[str, Any]]] = json.loads(answer.read())
        return outputs


def write(path: Path, environment: dict[str, str]) -> None:
    """Put the outputs of a run into the file."""
    notebook = read(path)
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for cell, outputs in zip(codes, run(path, environment), strict=True):
        cell["outputs"], cell["execution_count"] = outputs, None
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8")


def execute(source: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one cell; what it prints and what its last expression is."""
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    text = printed.getvalue()
    outputs: list[dict[str, Any]] = []
    if text:
        outputs.append({"name": "stdout", "output_type": "stream", "text": lines(text)})
    if value is not None:
        shown = {"data": forms(value), "execution_count": None, "metadata": {}}
        outputs.append({"output_type": "execute_result", **shown})
    return outputs


def forms(value: Any) -> dict[str, Any]:
    """A value as a notebook shows it; a picture's text is its size."""
    found: dict[str, Any] = {}
    for kind, method in FORMS.items():
        content = getattr(value, method)() if hasattr(value, method) else None
        if isinstance(content, bytes):
            found[kind] = base64.b64encode(content).decode()
        elif content is not None:
            found[kind] = lines(content)
    picture = "image/png" in found
    size = "x".join(map(str, value.size)) if picture else ""
    found["text/plain"] = [f"picture, {size}"] if picture else lines(repr(value))
    return found


def lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def serve(name: str, answer: str) -> None:
    """Be the process of a notebook."""
    names: dict[str, Any] = {"__name__": "__main__"}
    outputs = [execute("".join(cell["source"]), names) for cell in cells(Path(name))]
    Path(answer).write_text(json.dumps(outputs))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        del sys.path[0]  # the folder of this script
        serve(*sys.argv[1:])
    else:
        for path in sorted(FOLDER.glob("*.ipynb")):
            write(path, dict(os.environ))
