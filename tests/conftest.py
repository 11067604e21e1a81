"""Fixtures that rooms share: real data where the machine has them, and an empty project folder."""

import os
from pathlib import Path

import pytest

from tests.support.checkout import redirect_paths
from vae.data import sources
from vae.data.readers import MissingDataError


@pytest.fixture
def real_data_root(request: pytest.FixtureRequest) -> Path:
    """Root of the real data set that the test's mark names; skips where it is missing.

    With VAE_REAL_DATA=required (as .ci/run sets it) a missing data set is a failure.
    """
    mark = request.node.get_closest_marker("real_data")
    if mark is None:
        pytest.fail("a test that uses real_data_root needs the mark real_data(name)")
    name, root = mark.args[0], os.environ.get("VAE_DATA_ROOT")
    give_up = pytest.fail if os.environ.get("VAE_REAL_DATA") == "required" else pytest.skip
    if not root:
        give_up(f"real data {name}: VAE_DATA_ROOT is not set")
    try:
        sources.find(name, Path(root))
    except MissingDataError as missing:
        give_up(f"real data {name}: {missing}")
    return Path(root)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder in which the stages of this process read and write; no data root is set."""
    root = tmp_path / "project"
    redirect_paths(monkeypatch, root)
    monkeypatch.delenv("VAE_DATA_ROOT", raising=False)
    return root
