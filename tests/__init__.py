"""Tests mirror the tree. A package of its own, because a dependency installs one named `tests`."""
