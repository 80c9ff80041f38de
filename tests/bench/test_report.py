"""The comparison in tables."""

import io
import math

import pytest
from rich.console import Console

from crowd.bench.report import FAILED, TO_COME, Comparison, Scenario, markdown, percent_words, tables
from crowd.bench.statistics import CensoredValue, Regret
from tests.bench.runs import run

RUNS = [
    run("ours", 2.0),
    run("ours", 3.0, seed=1),
    run("theirs", 8.0),
    run("theirs", 4.0, seed=1),
    run("slow", 20.0, reached=False),
    run("slow", 30.0, reached=False, seed=1),
    run("ours", 5.0, cluster="attic"),
    run("theirs", 4.0, cluster="attic"),
]


def shown(comparison: Comparison, *, width: int = 120) -> str:
    file = io.StringIO()
    console = Console(file=file, width=width)
    for table in tables(comparison, console):
        console.print(table)
    return file.getvalue()


def test_on_a_screen_every_policy_has_its_times_and_bytes_and_regret() -> None:
    said = shown(Comparison(RUNS))
    for words in ("home", "attic", "2.5 s", "2.0 s – 3.0 s", "2.5 MB", "> 25.0 s", "> 20.0 s –", "> 30.0 s", "none"):
        assert words in said
    (regret_of_slow,) = [line for line in said.splitlines() if "slow" in line and "%" in line]
    assert "0 of 3" in regret_of_slow, "it has none in the attic"
    assert "> 900 %" in regret_of_slow


@pytest.mark.parametrize("width", [40, 80, 120])
def test_where_not_all_clusters_fit_there_are_more_tables_and_no_word_is_cut(width: int) -> None:
    clusters = [f"cluster-{number}" for number in range(8)]
    comparison = Comparison(
        run(policy, 345.0 + 10 * seed, cluster=cluster, reached=False, seed=seed)
        for cluster in clusters
        for policy in ("ours", "the_others")
        for seed in range(3)
    )
    said = shown(comparison, width=width)
    lines = said.splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in said
    for words in (*clusters, "> 5 min 55 s", "> 5 min 45 s –"):
        assert words in said
    assert said.count("> 5 min 55 s") >= 2 * len(clusters)
    assert said.count("┃ policy") == {40: 8, 80: 3, 120: 2}[width]


def test_policies_that_regret_least_at_worst_come_first() -> None:
    assert list(Comparison(RUNS).regrets) == ["ours", "theirs", "slow"]


def test_who_gave_up_early_does_not_come_before_who_arrived_elsewhere() -> None:
    runs = [
        run("ours", 1.0),
        run("ours", 1.0, cluster="attic"),
        run("gave_up", 2.0, reached=False),
        run("gave_up", 2.0, cluster="attic", reached=False),
        run("arrived_once", 9.0, reached=False),
        run("arrived_once", 9.0, cluster="attic"),
    ]
    assert list(Comparison(runs).regrets) == ["ours", "arrived_once", "gave_up"]


def test_the_best_is_one_that_reached_the_target() -> None:
    comparison = Comparison([run("a", 5.0), run("b", 3.0, reached=False), run("c", 9.0)])
    scenario = Scenario(task="digits", cluster="home")
    assert comparison.fastest(scenario) == comparison.thriftiest(scenario) == ("a",)
    nobody = Comparison([run("a", 5.0, reached=False)])
    assert nobody.fastest(scenario) == ()
    assert nobody.regrets == {}
    assert "> 5.0 s" in shown(nobody)


def test_the_fastest_need_not_be_the_thriftiest_and_both_may_be_several() -> None:
    comparison = Comparison([run("a", 5.0), run("b", 5.0, bytes_total=9), run("c", 6.0, bytes_total=9)])
    scenario = Scenario(task="digits", cluster="home")
    assert comparison.fastest(scenario) == ("a", "b")
    assert comparison.thriftiest(scenario) == ("b", "c")
    assert markdown(comparison).count("**5.0 s**") == 2
    assert markdown(comparison).count("**9 B**") == 2


@pytest.mark.parametrize("told", [False, True])
def test_who_lacks_a_run_is_shown_with_what_there_is_and_wins_nothing_by_it(told: bool) -> None:
    home, attic = (Scenario(task="digits", cluster=cluster) for cluster in ("home", "attic"))
    runs = [run("steady", 20.0, seed=seed) for seed in range(2)] + [run("flaky", 18.0)]
    missing = {(home, "flaky"): FAILED, (home, "none"): TO_COME, (attic, "none"): TO_COME} if told else {}
    comparison = Comparison(runs, missing)
    assert comparison.fastest(home) == comparison.thriftiest(home) == ("steady",)
    assert list(comparison.regrets)[:2] == ["steady", "flaky"]
    assert not comparison.regrets["flaky"].worst.amount.exact
    assert comparison.reached("flaky") == (1, 2)
    assert comparison.policies == (("steady", "flaky", "none") if told else ("steady", "flaky"))
    for said in (shown(comparison), markdown(comparison)):
        assert "18.0 s" in said
        assert "1 of 2 runs" in said
        assert ("to come" in said) is told
    assert (attic in comparison.scenarios) is told


def test_one_place_with_the_worst_regret_is_named_and_several_are_counted() -> None:
    said = markdown(Comparison([*RUNS, run("slow", 40.0, reached=False, cluster="attic")]))
    assert "| `ours` | 3 of 3 | 12 % | 25 % | attic, digits |" in said
    assert "| `slow` | 0 of 3 | > 900 % | > 900 % | 2 of 2 not reached |" in said


def test_who_is_the_best_everywhere_is_so_everywhere_alike() -> None:
    said = markdown(Comparison([run("ours", 2.0), run("ours", 3.0, cluster="attic"), run("theirs", 9.0)]))
    assert "| `ours` | 2 of 2 | 0 % | 0 % | 2 of 2 alike |" in said


def test_an_interval_without_an_end_says_so() -> None:
    assert percent_words(Regret(amount=CensoredValue(0.5), interval=(0.25, math.inf))) == "50 % (25 % or more)"


def test_in_markdown_the_best_is_bold_and_every_row_is_as_wide_as_its_head() -> None:
    said = markdown(Comparison(RUNS))
    assert "| `ours` | **2.5 s**<br>**2.5 MB** | 5.0 s<br>5.0 MB |" in said
    assert "| `slow` | > 25.0 s<br>> 25.0 MB | none |" in said
    for block in said.strip().split("\n\n"):
        assert len({line.count("|") for line in block.splitlines()}) == 1


@pytest.mark.parametrize("seeds", [1, 5])
def test_an_interval_is_shown_where_there_are_seeds_enough(seeds: int) -> None:
    runs = [
        run(policy, length + seed, seed=seed) for policy, length in (("a", 1.0), ("b", 9.0)) for seed in range(seeds)
    ]
    assert (" % to " in markdown(Comparison(runs))) is (seeds == 5)
