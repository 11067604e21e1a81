"""Params of a folder of one's own images."""

from pathlib import Path

from pipeline.config.schema.data import FolderData


def folder_data(root: Path, **changes: object) -> FolderData:
    """Colour images under root/own as they are, a fifth each for validation and test."""
    settings: dict[str, object] = {
        "name": "folder",
        "root": str(root),
        "binarize": "none",
        "path": "own",
        "channels": 3,
        "centre_crop": False,
        "size": None,
        "valid_fraction": 0.2,
        "test_fraction": 0.2,
        "seed": 0,
        "max_broken": 0,
    }
    return FolderData.model_validate(settings | changes)
