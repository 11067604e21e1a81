"""What counts in a study that several workers share."""

import optuna

from pipeline.sweep import studies


def study(trials: int) -> optuna.Study:
    empty = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    empty.set_user_attr("trials", trials)
    return empty


def test_of_two_workers_that_take_the_last_place_the_later_gives_it_back() -> None:
    shared = study(2)
    for _ in range(3):  # two looked when one place was left, and both began
        shared.ask()
    assert [studies.is_surplus(shared, number) for number in range(3)] == [False, False, True]
    shared._storage.set_trial_user_attr(shared.trials[2]._trial_id, studies.SURPLUS, True)
    assert studies.count_started(shared) == 2


def test_a_trial_that_repeats_a_dead_one_has_its_place() -> None:
    shared = study(2)
    for _ in range(2):
        shared.ask()
    studies.requeue_trial(shared, shared.trials[0])
    again = shared.ask()
    assert (again.number, studies.is_surplus(shared, again.number)) == (2, False)
    assert shared.ask().number == 3
    assert studies.is_surplus(shared, 3)
