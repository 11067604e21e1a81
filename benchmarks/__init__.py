"""Measurements of time and memory. Each module is a command; `windows.result_path` is the file of
its results on this machine."""
