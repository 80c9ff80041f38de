import contextlib
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from crowd.cli.main import main
from crowd.errors import BadConfig
from crowd.planning.check import check_hope
from crowd.planning.plan import LeftOut, Member, Plan
from crowd.units import Life, device_id
from tests.cli.nodes import NAMES, start, write_config
from tests.support.mosquitto import Mosquitto

pytestmark = pytest.mark.alone


def fails(config: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The last line with which a node that cannot work ends."""
    assert main(["node", "--config", str(config), "--once"]) == 2
    output, error = capsys.readouterr()
    assert output == ""
    assert "Traceback" not in error
    last = error.splitlines()[-1]
    assert last.startswith("crowd: ")
    assert error.count("crowd: ") == 1
    return last


def test_two_nodes_train_and_end_with_the_same_model(here: Path, broker: Mosquitto) -> None:
    configs = {name: write_config(here, name, broker.url, task="mytask:easy", members_min=2) for name in NAMES}
    processes = {name: start(here, path, "--once", "--json", f"{name}.json") for name, path in configs.items()}
    said = {name: process.communicate(timeout=120) for name, process in processes.items()}
    assert [process.returncode for process in processes.values()] == [0, 0], said
    lines = {output.strip() for output, _ in said.values()}
    assert len(lines) == 1, "everybody tells of the same run and the same model"
    assert lines.pop().startswith("reached the target of 60.0%: ")
    (run,) = json.loads((here / "anna.json").read_text())["runs"]
    assert run["reached"] is True
    assert set(run["devices"]) == set(NAMES)
    assert len(set(run["model_digests"].values())) == 1
    assert run["bytes_total"] > 0
    assert (here / "state-anna" / "model.safetensors").is_file()


def test_a_node_says_whose_samples_nobody_trains_and_why(here: Path, broker: Mosquitto) -> None:
    processes = []
    for name in NAMES:
        config = write_config(
            here, name, broker.url, task="mytask:easy", members_min=2, policy="ship_once", share="never"
        )
        processes.append(start(here, config, "--once", "--json", f"{name}.json"))
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    ((idle, expected),) = json.loads((here / "anna.json").read_text())["runs"][0]["idle"].items()
    assert expected == [256, "they may not leave it"]
    for output, _ in said:
        assert output.splitlines()[0] == f"idle: 256 samples of {idle}, they may not leave it"


def test_a_run_short_of_its_target_ends_with_one(
    here: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(here, "anna", broker.url, task="mytask:too_hard")
    assert main(["node", "--config", str(config), "--once"]) == 1
    assert capsys.readouterr().out.startswith("did not reach the target of 100.0%: ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_node_that_is_told_to_stop_says_nothing_and_says_by_what(
    here: Path, broker: Mosquitto, number: signal.Signals, code: int
) -> None:
    process = start(here, write_config(here, "anna", broker.url, task="mytask:easy", members_min=2))
    assert process.stderr is not None
    assert any("plan_activated" in line for line in process.stderr), "it waits for the second device"
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (code, "")
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("state_dir", "json", "expected"),
    [("/proc", "run.json", "state directory /proc: "), ("state", "nowhere/run.json", "there is no directory nowhere")],
)
def test_what_could_not_be_written_at_the_end_is_known_before(
    here: Path, capsys: pytest.CaptureFixture[str], state_dir: str, json: str, expected: str
) -> None:
    config = write_config(here, "anna", "mqtt://127.0.0.1:1", task="mytask:easy")
    config.write_text(config.read_text().replace('"state-anna"', f'"{state_dir}"'))
    assert main(["node", "--config", str(config), "--once", "--json", json]) == 2
    assert expected in capsys.readouterr().err


def test_a_model_that_cannot_be_saved_at_the_end_is_offered_elsewhere(here: Path, broker: Mosquitto) -> None:
    configs = {name: write_config(here, name, broker.url, task="mytask:easy", members_min=2) for name in NAMES}
    process = start(here, configs["anna"], "--once")
    assert process.stderr is not None
    assert any("plan_activated" in line for line in process.stderr), "it waits for the second device"
    shutil.rmtree(here / "state-anna")
    other = start(here, configs["ben"], "--once")
    output, error = process.communicate(timeout=60)
    other.communicate(timeout=60)
    assert (process.returncode, other.returncode) == (2, 0)
    assert output.startswith("reached the target of 60.0%: ")
    (offered,) = here.glob("crowd-model-*.safetensors")
    assert f"the trained model cannot be written to {here / 'state-anna'}; it is in {offered}: " in error
    assert load_file(offered).keys() == {"weight", "bias"}


def test_a_node_that_is_told_twice_ends_at_once_and_quietly(here: Path) -> None:
    with Mosquitto() as hanging:
        process = start(here, write_config(here, "anna", hanging.url, task="mytask:easy", members_min=2))
        assert process.stderr is not None
        assert any("plan_activated" in line for line in process.stderr), "it waits for the second device"
        hanging.signal(signal.SIGSTOP)  # it takes no goodbye
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
        hanging.signal(signal.SIGCONT)
        output, error = process.communicate()
        assert (process.returncode, output) == (-signal.SIGINT, "")
        assert "Traceback" not in error


@pytest.mark.parametrize("mistake", ["password", "key", "members", "members_min", "policy", "task", "state_dir"])
def test_what_can_be_checked_without_torch_is_checked_before_it_is_loaded(here: Path, mistake: str) -> None:
    (here / "password").write_text("wrong" if mistake == "password" else "right")
    with Mosquitto(users={"anna": "right"}) as guarded:
        node = 'username = "anna"\npassword_file = "password"'
        config = write_config(here, "anna", guarded.url, task="mytask:easy", node=node)
        text = config.read_text()
        match mistake:
            case "key":
                text = text.replace('"anna.key"', '"ben.key"')
            case "members":
                (here / "members.toml").write_text("")
            case "members_min":
                text = text.replace("members_min = 1", "members_min = 3")
            case "policy":
                text = text.replace('"fedavg"', '"fedavgg"')
            case "task":
                text = text.replace('"mytask:easy"', '"digitz"')
            case "state_dir":
                text = text.replace('"state-anna"', '"/proc"')
        config.write_text(text)
        code = (
            "import sys; from crowd.cli.main import main; code = main(); print('torch' in sys.modules); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "node", "--config", str(config)], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (2, "False\n"), done.stderr


@pytest.mark.parametrize("loading", ["sum(range(10**15))", "time.sleep(600)"], ids=["busy in C", "asleep"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_that_still_loads_its_task_ends_at_once_and_quietly(
    here: Path, loading: str, number: signal.Signals
) -> None:
    (here / "slow.py").write_text(f"import time\ndef task(device):\n    print('loading', flush=True)\n    {loading}\n")
    process = start(here, write_config(here, "anna", "mqtt://127.0.0.1:1", task="slow:task"))
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(number)
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (-number, "")
    assert "Traceback" not in error
    assert "reading the data of task 'slow:task'" in error


def test_a_cluster_without_data_is_bad_input(here: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(here, "anna", broker.url, task="mytask:empty")
    assert "no device has samples (anna)" in fails(config, capsys)


def test_a_loss_that_is_no_number_is_bad_input(
    here: Path, broker: Mosquitto, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(here, "anna", broker.url, task="mytask:diverging")
    assert "loss" in fails(config, capsys)


@pytest.mark.parametrize(
    ("task", "policy", "scheme", "expected"),
    [
        ("digitz", "fedavg", "mqtt", "unknown task 'digitz'; did you mean 'digits'?"),
        ("mytask:easy", "fedavgg", "mqtt", "unknown policy 'fedavgg'; did you mean 'fedavg'?"),
        ("mytask:easy", "fedavg", "amqp", "unknown kind of broker 'amqp'"),
        ("mytask:wrong_shape", "fedavg", "mqtt", "data has inputs float32 (5,)"),
    ],
)
def test_what_does_not_exist_or_fit_is_named_before_anything_is_sent(
    here: Path, capsys: pytest.CaptureFixture[str], task: str, policy: str, scheme: str, expected: str
) -> None:
    config = write_config(here, "anna", f"{scheme}://127.0.0.1:1", task=task, policy=policy)
    assert expected in fails(config, capsys)


def test_a_broker_that_is_not_there_yet_is_waited_for_with_a_line(here: Path) -> None:
    with Mosquitto() as broker:
        broker.kill()
        process = start(here, write_config(here, "anna", broker.url, task="mytask:easy"), "--once")
        assert process.stderr is not None
        said = next(line for line in process.stderr if "waiting_for_broker" in line)
        assert "is the broker running?" in said
        assert "waited_s=0" in said
        broker.start()
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error


def test_two_nodes_train_over_a_broker_that_takes_packets_of_16_kib(here: Path) -> None:
    with Mosquitto(settings=["max_packet_size 16384"]) as broker:
        configs = [write_config(here, name, broker.url, task="mytask:wide", members_min=2) for name in NAMES]
        processes = [start(here, config, "--once") for config in configs]
        said = [process.communicate(timeout=120) for process in processes]
        assert [process.returncode for process in processes] == [0, 0], said
        assert len({output for output, _ in said}) == 1
        assert all("broker_lost" not in error for _, error in said)


def test_a_broker_that_takes_too_little_is_bad_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Mosquitto(settings=["max_packet_size 3000"]) as broker:
        line = fails(write_config(here, "anna", broker.url, task="mytask:easy"), capsys)
        assert "takes messages of at most 2,488 bytes" in line
        assert "raise max_packet_size" in line


def test_an_access_list_that_denies_publishing_is_bad_input_and_the_topic_is_named(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Mosquitto(acl="topic read crowd/#\n") as broker:
        line = fails(write_config(here, "anna", broker.url, task="mytask:easy"), capsys)
        assert "denies a client without a username publishing to crowd/1/" in line
        assert "/node/anna/status: allow writing it in the broker's access list" in line


def test_a_wrong_password_is_bad_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "password").write_text("wrong\n")
    with Mosquitto(users={"anna": "right"}) as guarded:
        node = 'username = "anna"\npassword_file = "password"'
        config = write_config(here, "anna", guarded.url, task="mytask:easy", node=node)
        assert "password" in fails(config, capsys)


def test_a_missing_and_a_malformed_file_are_bad_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nowhere.toml: no such file" in fails(here / "nowhere.toml", capsys)
    (here / "broken.toml").write_text("[node\n")
    assert "broken.toml" in fails(here / "broken.toml", capsys)


def test_a_device_that_is_left_out_is_told_why() -> None:
    life = Life(incarnation=1, boot=bytes(16))
    plan = Plan(members=(), left_out=(LeftOut(device=device_id("anna"), life=life, reason="its task differs"),))
    with pytest.raises(BadConfig, match="anna is left out: its task differs"):
        check_hope(plan, "anna", 2)
    check_hope(plan, "ben", 2)


def test_of_two_that_differ_neither_gives_up_before_the_third_has_come() -> None:
    life, names = Life(incarnation=1, boot=bytes(16)), tuple(map(device_id, ("anna", "ben", "cleo")))
    left_out = (LeftOut(device=names[0], life=life, reason="its task differs"),)
    plan = Plan(members=(Member(device=names[1], life=life, data_epoch=0),), left_out=left_out)
    check_hope(plan, "anna", 2, names)
    with pytest.raises(BadConfig, match="anna is left out: its task differs"):
        check_hope(plan, "anna", 2, names[:2])
