"""docs/protocol.md names every message, every cargo, and nothing else."""

import re
from pathlib import Path
from typing import get_args

import pytest

from crowd.protocol.messages import Cargo, Message

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text("utf-8")
MESSAGES = TEXT.partition("\n## Messages\n")[2].partition("\n## ")[0]
ROW = re.compile(r"^\| `(\w+)` \|", re.MULTILINE)
TABLE = re.compile(r"^\| (message|cargo) \|.*\n(?:\|.*\n)+", re.MULTILINE)


@pytest.mark.parametrize(("head", "union"), [("message", Message), ("cargo", Cargo)])
def test_the_tables_of_the_protocol_name_each_of_them_once(head: str, union: object) -> None:
    tables = [table[0] for table in TABLE.finditer(MESSAGES) if table[1] == head]
    assert sorted(name for table in tables for name in ROW.findall(table)) == sorted(
        each.__name__ for each in get_args(union)
    )
