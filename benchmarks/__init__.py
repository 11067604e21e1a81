"""What things cost: measurements that no test repeats. Each module is a command and writes
`reports/results/<name>.json`."""
