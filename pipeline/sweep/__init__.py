"""Studies: many short trainings, scored alike, to choose params.

space       a point of a study as the whole params of a trial
studies     Optuna's storage: studies are created, repaired and counted
trial       one short training and its scores, in memory
worker      proposes, trains and reports trials; any number of workers share a study
run         starts workers, replaces dead ones, closes the study
records     rows of the tracker; status: the table; pages: figures; archive: the kept copy
promotion   writes a trial into params.yaml

The command is `python -m pipeline sweep`.
"""
