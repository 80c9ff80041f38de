"""Kinds of processors are told apart by what decides how they compute."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crowd.bench.processor import kind

TURIN = """processor	: 0
vendor_id	: AuthenticAMD
cpu family	: 26
model		: 2
model name	: AMD EPYC
cpu MHz		: 2596.124

processor	: 1
vendor_id	: another
"""
PI_4 = """processor	: 0
BogoMIPS	: 108.00
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08

Model		: Raspberry Pi 4 Model B Rev 1.4
"""


@pytest.mark.parametrize(
    ("text", "expected"), [(TURIN, ("AuthenticAMD", "26", "2")), (PI_4, ("0x41", "8", "0x0", "0xd08")), ("", ())]
)
def test_linux_says_of_what_kind_it_is(tmp_path: Path, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    machine, *found = kind(tmp_path / "cpuinfo")
    assert machine == os.uname().machine
    assert tuple(found) == expected


def test_elsewhere_python_says_it(tmp_path: Path) -> None:
    assert kind(tmp_path / "nowhere")[0] == os.uname().machine


def test_fewer_instructions_make_another_kind() -> None:
    command = [sys.executable, "-c", "from crowd.bench.processor import processor; print(processor())"]
    best = torch.backends.cpu.get_cpu_capability()
    said = {
        subprocess.run(
            command, capture_output=True, text=True, check=True, env=os.environ | {"ATEN_CPU_CAPABILITY": capability}
        ).stdout
        for capability in ("default", best.lower())
    }
    assert len(said) == len({"DEFAULT", best})
