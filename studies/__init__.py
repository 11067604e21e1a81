"""Studies that use the pipeline and answer one question each."""
