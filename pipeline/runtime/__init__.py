"""What every command uses: paths, terminal, process ranks, run log, code digest."""
