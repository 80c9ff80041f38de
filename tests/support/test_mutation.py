"""Holes are made where they are asked for, by meaning instead of by letters, and they close again."""

import sys
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from tests.support.mutation import delete, insert, replace, rewritten

HERE = sys.modules[__name__]


def price(count: int, *, each: int = 3) -> int:
    """Of so many; each may cost something else."""
    # a comment between
    if (
        count  # how many
        > 10
    ):
        return count * each - 1
    return count * each


def calls_price() -> int:
    return price(2)


def counted(*, step: int) -> Callable[[], int]:
    total = 0

    def count() -> int:
        nonlocal total
        total += step
        return total

    def reset() -> int:
        nonlocal total
        total += step
        return total

    total = reset() - step
    return count


class Shop:
    def __init__(self) -> None:
        self.sold: list[str] = []

    def sell(self, what: str) -> int:
        text = """sold:
  nothing else"""
        self.sold.append(what)
        self.sold.append(text)
        return len(self.sold)

    @property
    def first(self) -> str:
        return self.sold[0]

    @staticmethod
    def greeting() -> str:
        return "hello"

    @classmethod
    def name(cls) -> str:
        return cls.__name__

    @contextmanager
    def open(self):  # type: ignore[no-untyped-def]
        yield "open"

    async def wait(self) -> str:
        return "waited"


class Corner(Shop):
    def sell(self, what: str) -> int:
        return super().sell(what) + 0


# --- what is put where ------------------------------------------------------------------------------------------------


def test_an_expression_is_found_however_it_is_written_down() -> None:
    with rewritten(HERE, "price", replace("(count>10)", "count > 1")):
        assert price(2) == 5
    assert price(2) == 6


def test_a_statement_is_found_with_all_that_it_contains() -> None:
    whole = "if count > 10:\n    return count * each - 1"
    with rewritten(HERE, "price", replace(whole, "if count > 10:\n    return 0")):
        assert (price(2), price(11)) == (6, 0)


def test_one_statement_may_become_several() -> None:
    with rewritten(HERE, "price", replace("return count * each", "count += 1\nreturn count * each")):
        assert price(2) == 9


@pytest.mark.parametrize("change", [delete("self.sold.append(what)"), replace("self.sold.append(what)", "pass")])
def test_a_statement_is_deleted(change: Any) -> None:
    with rewritten(Shop, "sell", change):
        assert Shop().sell("bread") == 1


def test_the_only_statement_of_a_block_may_be_deleted() -> None:
    with rewritten(HERE, "price", delete("return count * each - 1")):
        assert price(11) == 33


def test_statements_are_put_before_and_after_another() -> None:
    changes = (
        insert("what = what.upper()", before="self.sold.append(what)"),
        insert("self.sold.append('bag')", after="self.sold.append(what)"),
    )
    shop = Shop()
    with rewritten(Shop, "sell", *changes):
        assert shop.sell("bread") == 3
    assert shop.sold == ["BREAD", "bag", "sold:\n  nothing else"]


def test_a_change_sees_what_those_before_it_have_made() -> None:
    with rewritten(HERE, "price", replace("count > 10", "count > 20"), replace("count > 20", "count > 1")):
        assert price(2) == 5


# --- whose function ---------------------------------------------------------------------------------------------------


def test_whoever_calls_the_function_meets_the_hole() -> None:
    earlier = price
    with rewritten(HERE, "price", replace("count > 10", "count > 1")):
        assert (calls_price(), earlier(2)) == (5, 5)


def test_defaults_and_decorators_stay() -> None:
    with rewritten(HERE, "price", replace("count > 10", "False")), rewritten(Shop, "open", replace("'open'", "'shut'")):
        assert price(20) == 60
        with Shop().open() as state:
            assert state == "shut"


def test_properties_static_and_class_methods_are_rewritten() -> None:
    shop = Shop()
    shop.sell("bread")
    with (
        rewritten(Shop, "first", replace("self.sold[0]", "self.sold[-1]")),
        rewritten(Shop, "greeting", replace("'hello'", "'good day'")),
        rewritten(Shop, "name", replace("cls.__name__", "cls.__name__.upper()")),
    ):
        assert (shop.first, Shop.greeting(), Shop.name()) == (shop.sold[1], "good day", "SHOP")
    assert (shop.first, Shop.greeting(), Shop.name()) == ("bread", "hello", "Shop")


def test_a_method_may_call_its_parent() -> None:
    with rewritten(Corner, "sell", replace("0", "10")):
        assert Corner().sell("bread") == 12


def test_a_function_within_another_is_named_after_both() -> None:
    with rewritten(HERE, "counted.count", replace("total += step", "total += 10 * step")):
        assert counted(step=2)() == 20


def test_a_coroutine_stays_one() -> None:
    with rewritten(Shop, "wait", replace("'waited'", "'hurried'")):
        assert anyio.run(Shop().wait) == "hurried"


def test_the_hole_closes_after_an_error_too() -> None:
    with pytest.raises(ZeroDivisionError), rewritten(HERE, "price", replace("count > 10", "1 // 0")):
        price(1)
    assert price(1) == 3


# --- what cannot be done ----------------------------------------------------------------------------------------------


def test_what_is_not_there_is_said_with_the_functions_name() -> None:
    with (
        pytest.raises(LookupError, match=r"test_mutation\.price contains 'count > 11' 0 times"),
        rewritten(HERE, "price", replace("count > 11", "True")),
    ):
        pass


def test_what_is_there_twice_is_not_touched() -> None:
    with (
        pytest.raises(LookupError, match=r"Shop\.sell contains 'self\.sold' 3 times"),
        rewritten(Shop, "sell", replace("self.sold", "[]")),
    ):
        pass
    with (
        pytest.raises(LookupError, match=r"counted contains 'total \+= step' 2 times"),
        rewritten(HERE, "counted", delete("total += step")),
    ):
        pass


def test_a_default_is_not_looked_for() -> None:
    with pytest.raises(LookupError, match="0 times"), rewritten(HERE, "price", replace("3", "4")):
        pass


def test_a_function_that_is_not_within_the_other_is_missed() -> None:
    with pytest.raises(LookupError, match="'discount' 0 times"), rewritten(HERE, "counted.discount", delete("pass")):
        pass


def test_two_statements_are_too_many_to_look_for() -> None:
    with pytest.raises(ValueError, match="not 2"), rewritten(HERE, "price", delete("a = 1\nb = 2")):
        pass


def test_what_is_no_function_cannot_have_a_hole() -> None:
    with pytest.raises(TypeError, match="HERE"), rewritten(HERE, "HERE", delete("pass")):
        pass


def test_an_insertion_has_one_place() -> None:
    with pytest.raises(ValueError, match="the statement"):
        insert("pass")
    with pytest.raises(ValueError, match="the statement"):
        insert("pass", before="pass", after="pass")
