"""A prepared project that the files of this folder copy."""

import pytest

from tests.support.checkout import Checkout


@pytest.fixture(scope="session")
def with_extractor(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Digits prepared, and their feature extractor, without a tracker; tests work on copies."""
    checkout = Checkout(tmp_path_factory.mktemp("base") / "project", "tracking.enabled=false")
    checkout.run_stages("source", "prepare", "extractor")
    return checkout
