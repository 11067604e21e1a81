"""The stages of dvc.yaml, one module or package each, independent of each other."""
