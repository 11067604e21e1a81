"""Rules of the diagnosis, grouped by subject."""
