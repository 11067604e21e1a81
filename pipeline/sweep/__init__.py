"""Studies: many short trainings, scored alike, to choose params.

space       a point of a study as the complete params of a trial
studies     Optuna's storage: studies are created, repaired and counted
trial       one short training and its metrics, in memory
worker      proposes, trains and reports trials; several workers can share a study
run         starts workers, replaces dead ones, writes the report
records     MLflow records; status: the table; pages: figures; archive: the archived copy
promotion   writes a trial into params.yaml

The command is `python -m pipeline sweep`.
"""
