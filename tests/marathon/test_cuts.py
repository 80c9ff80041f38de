from tests.marathon.cuts import INTERVAL_S, Said, interval_s, latest


def test_the_most_advanced_checkpoint_is_that_of_the_greatest_round_that_was_there_first() -> None:
    lines = [Said("ada", 3.0, 7), Said("ben", 2.0, 9), Said("ada", 1.5, 9), Said("ben", 9.0, 2)]
    assert latest(lines) == Said("ada", 1.5, 9)
    assert latest([]).round == 0


def test_the_interval_is_the_longest_of_any_device() -> None:
    assert interval_s([Said("ada", 1.0, 1), Said("ben", 2.0, 3), Said("ada", 4.5, 5), Said("ben", 4.0, 5)]) == 3.5
    assert interval_s([Said("ada", 1.0, 1), Said("ben", 2.0, 3)]) == INTERVAL_S
