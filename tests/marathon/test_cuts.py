from tests.marathon.cuts import INTERVAL_S, Said, interval_s, latest


def test_the_most_advanced_checkpoint_is_that_of_the_greatest_round_that_was_there_first() -> None:
    lines = [Said("ada", 3.0, 7), Said("ben", 2.0, 9), Said("ada", 1.5, 9), Said("ben", 9.0, 2)]
    assert latest(lines) == Said("ada", 1.5, 9)
    assert latest([]).round == 0


def test_the_interval_is_the_longest_that_the_log_names() -> None:
    lines = [f"checkpoint_saved again_s={again_s} digest=ab round=3 run=1" for again_s in (2.0, 4.6, 3.1)]
    assert interval_s([*lines, "round_complete again_s=9.0"]) == 4.6
    assert interval_s(["round_complete round=1"]) == INTERVAL_S
