"""MLflow: run records made from files and synchronised."""
