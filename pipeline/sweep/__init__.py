"""Studies: what many short trainings, each judged alike, say of params.

space       a point of a study -> whole params of a trial
studies     Optuna's storage: made once, mended, counted
trial       one short training and its judging, in memory
worker      proposes, trains, tells; any number of them share a study
conductor   starts workers, replaces dead ones, closes the study
families    presets under an equal budget; ablation: what that says of claims
rows        the tracker's; status: the table; pages: charts; findings: what the README shows
promotion   a trial into params.yaml

`python -m pipeline sweep` is the door.
"""
