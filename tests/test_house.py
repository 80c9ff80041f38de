"""Rules of the house that no linter knows."""

import subprocess
import sys

import pytest

HELP = "from crowd.cli.main import main; assert main({arguments}) == 0"


@pytest.mark.parametrize(
    "code",
    [
        "import crowd",
        "import crowd; crowd.NodeConfig",
        "import crowd.plugins",
        HELP.format(arguments=["--help"]),
        HELP.format(arguments=["plan", "--help"]),
        HELP.format(arguments=["sim", "--help"]),
        HELP.format(arguments=["keys", "--help"]),
        HELP.format(arguments=["bench", "--help"]),
    ],
)
def test_torch_is_not_loaded_before_there_is_work_for_it_nor_what_draws(code: str) -> None:
    check = "import sys; assert not {'torch', 'matplotlib', 'jinja2'} & sys.modules.keys(), 'too much was loaded'"
    done = subprocess.run([sys.executable, "-c", f"{code}; {check}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
