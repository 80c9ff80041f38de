from pathlib import Path

import pytest

from crowd.config.cluster_file import DeviceConfig, DeviceKind, read_cluster_config
from crowd.config.data import DataConfig, PartitionKind
from crowd.config.node_file import NodeConfig, read_node_config
from crowd.errors import BadConfig
from crowd.planning.profile import Prefer, Share
from crowd.units import bytes_per_second

NODE = """
[node]
name = "gateway"
cluster = "home"
broker = "mqtt://broker.local:1883"
username = "gateway"
password_file = "mqtt.password"
key_file = "gateway.key"
members_file = "members.toml"
[train]
share = "never"
members_min = 3
uplink_mbps = 40
[data]
partition = "dirichlet"
part = 1
parts = 3
"""
CLUSTER = """
[cluster]
name = "smart-home"
prefer = "bytes"
[data]
partition = "dirichlet"
alpha = 0.5
[[device]]
name = "gateway"
kind = "raspberry-pi-4"
memory_mib = 1024
speed_schedule = [[60.0, 0.2], [180, 1]]
fails_at_s = [120.0]
returns_at_s = [300.0]
[[device]]
name = "hub"
train_gflops = 50
memory_mib = 4096
uplink_mbps = 100.0
downlink_mbps = 100.0
broker = true
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with the files that `NODE` names."""
    for name in ("mqtt.password", "gateway.key", "members.toml"):
        (tmp_path / name).write_text("")
    return tmp_path


def node(home: Path, text: str = NODE) -> NodeConfig:
    (home / "node.toml").write_text(text)
    return read_node_config(home / "node.toml")


def cluster_error(tmp_path: Path, text: str) -> str:
    """What is wrong with a cluster file, without the path that it must begin with."""
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(BadConfig) as caught:
        read_cluster_config(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_node_file_becomes_one_flat_value_with_paths_relative_to_the_file(home: Path) -> None:
    assert node(home) == NodeConfig(
        name="gateway",
        cluster="home",
        broker="mqtt://broker.local:1883",
        username="gateway",
        password_file=home / "mqtt.password",
        key_file=home / "gateway.key",
        members_file=home / "members.toml",
        state_dir=home / "state",
        share=Share.NEVER,
        members_min=3,
        uplink_mbps=40.0,
        data=DataConfig(partition=PartitionKind.DIRICHLET, part=1, parts=3),
    )


def test_an_absolute_path_stays_where_it_points(home: Path) -> None:
    elsewhere = home / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "a.key").write_text("")
    assert node(home, NODE.replace('"gateway.key"', f'"{elsewhere}/a.key"')).key_file == elsewhere / "a.key"


def test_a_node_is_described_in_code_by_three_names_and_by_plain_words() -> None:
    config = NodeConfig(name="a", cluster="home", broker="memory://x", share="features", key_file="a.key")
    assert (config.share, config.prefer, config.key_file) == (Share.FEATURES, Prefer.TIME, Path("a.key"))
    assert config.uplink_bytes_s == config.downlink_bytes_s == 1_250_000


def test_a_password_is_read_without_its_newline(home: Path) -> None:
    (home / "mqtt.password").write_text(" pass word \n")
    assert node(home).read_password() == " pass word "
    (home / "mqtt.password").write_bytes(b"\xef\xbb\xbf pass word \r\n")
    assert node(home).read_password() == " pass word "
    assert NodeConfig(name="a", cluster="home", broker="memory://x").read_password() is None
    with pytest.raises(BadConfig, match=r"password_file: nowhere cannot be read"):
        NodeConfig(name="a", cluster="home", broker="memory://x", password_file="nowhere").read_password()


def test_a_byte_order_mark_is_read_over(home: Path) -> None:
    assert node(home, f"\ufeff{NODE}") == node(home, NODE)


def test_what_is_out_of_range_is_refused_in_code_too() -> None:
    with pytest.raises(BadConfig, match="members_min: expected at least 1, found 0"):
        NodeConfig(name="a", cluster="home", broker="memory://x", members_min=0)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('cluster = "home"\n', "", "the key 'node.cluster' is missing; which cluster does it belong to?"),
        ('key_file = "gateway.key"\n', "", "the key 'node.key_file' is missing; make a key with 'crowd keys new NAME'"),
        ("username", "usrname", "unknown key 'node.usrname'; did you mean 'username'?"),
        ("members_min", "name", "unknown key 'train.name'; it belongs in [node]"),
        ("[train]", "[training]", "unknown key 'training'; did you mean 'train'?"),
        ("[data]\n", "[data]\nx = 1\n", "unknown key 'data.x'; known are 'alpha', 'part', 'partition', 'parts'"),
        ("members_min = 3", "members_min = 3.0", "members_min: expected a whole number, found 3.0"),
        ("members_min = 3", "members_min = true", "members_min: expected a whole number, found True"),
        ("uplink_mbps = 40", 'uplink_mbps = "40"', "uplink_mbps: expected a number, found '40'"),
        ("uplink_mbps = 40", "uplink_mbps = nan", "uplink_mbps: expected a number above 0, found nan"),
        ('"never"', '"nevr"', "share: expected one of 'raw', 'features', 'never', found 'nevr'"),
        ('name = "gateway"', 'name = "Gate Way"', "name: expected a-z, 0-9 and inner hyphens"),
        ("mqtt://broker.local:1883", "broker.local", "broker: expected a URL as 'mqtt://host:1883'"),
        ("part = 1", "part = 3", "data.part: expected less than parts (3), found 3"),
        ("part = 1\n", "", "the key 'data.part' is missing"),
        ('"mqtt.password"', '"password"', "password_file: there is no file"),
        ("[train]", "train = 1\n[x]", "unknown key 'node.train'"),
    ],
)
def test_a_mistake_in_a_node_file_is_named_in_one_line(home: Path, old: str, new: str, expected: str) -> None:
    assert old in NODE
    with pytest.raises(BadConfig) as caught:
        node(home, NODE.replace(old, new))
    message = str(caught.value)
    assert message.startswith(f"{home / 'node.toml'}: ")
    assert expected in message
    assert "\n" not in message


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"node\.toml: no such file"):
        read_node_config(tmp_path / "node.toml")


def test_malformed_toml_is_named_with_its_line(home: Path) -> None:
    with pytest.raises(BadConfig, match=r"node\.toml: no valid TOML: .*line 2"):
        node(home, "[node]\nname gateway\n")


def test_a_directory_instead_of_a_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be read"):
        read_node_config(tmp_path)


def test_a_cluster_file_keeps_its_devices_in_order(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(CLUSTER)
    cluster = read_cluster_config(path)
    assert (cluster.name, cluster.prefer, cluster.data.alpha) == ("smart-home", Prefer.BYTES, 0.5)
    assert [device.name for device in cluster.devices] == ["gateway", "hub"]
    assert cluster.devices[0].speed_schedule == ((60.0, 0.2), (180.0, 1.0))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("broker = true", "los = 0.1", "unknown key 'device #2.los'; did you mean 'loss'?"),
        ("broker = true", "loss = 1.0", "device #2.loss: expected a number of at least 0 and below 1, found 1.0"),
        ("broker = true", "broker = 1", "device #2.broker: expected true or false, found 1"),
        ("broker = true", "latency_ms = -1", "device #2.latency_ms: expected a number of at least 0"),
        ("broker = true", "train_gflops = 1", "no valid TOML: Cannot overwrite a value"),
        ('name = "hub"', 'name = "gateway"', "device: expected names of their own, found 'gateway' more than once"),
        ('name = "hub"', 'nam = "hub"', "unknown key 'device #2.nam'; did you mean 'name'?"),
        ('name = "hub"\n', "", "the key 'device #2.name' is missing"),
        ('kind = "raspberry-pi-4"', "broker = true", "device: expected broker = true on one device at most"),
        ("[180, 1]", "[50, 1]", "device #1.speed_schedule: expected [time in s, factor above 0]"),
        ("[180, 1]", "[180]", "device #1.speed_schedule #2: expected an array of 2, found 1"),
        ("[180, 1]", "[180, 0]", "device #1.speed_schedule: expected [time in s, factor above 0]"),
        ("[120.0]", "120.0", "device #1.fails_at_s: expected an array, found 120.0"),
        ("[300.0]", "[100.0]", "device #1.returns_at_s: expected one return after each failure, before the next"),
        ("[120.0]", "[120.0, 200.0]", "device #1.returns_at_s: expected one return after each failure"),
        ("[cluster]\n", '[cluster]\nseed = "0"\n', "unknown key 'cluster.seed'"),
        ('"dirichlet"', '"even"', "data.partition: expected one of 'iid', 'dirichlet', 'subject', found 'even'"),
    ],
)
def test_a_mistake_in_a_cluster_file_is_named_in_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in CLUSTER
    assert cluster_error(tmp_path, CLUSTER.replace(old, new)).startswith(expected)


def test_a_cluster_needs_a_device(tmp_path: Path) -> None:
    assert cluster_error(tmp_path, 'device = []\n[cluster]\nname = "a"') == "device: expected at least one [[device]]"


PI = DeviceKind(train_gflops=6.0, memory_mib=2048, uplink_mbps=90.0, downlink_mbps=90.0, half_duplex=True, source="x")


def test_a_device_is_as_its_kind_but_for_what_it_says_itself() -> None:
    device = DeviceConfig(name="gateway", kind="pi", memory_mib=1024, half_duplex=False)
    resolved = device.resolve({"pi": PI})
    assert (resolved.speed_kflops, resolved.memory_bytes, resolved.half_duplex) == (6_000_000, 1 << 30, False)


def test_a_device_of_no_kind_says_all_itself() -> None:
    device = DeviceConfig(name="a", train_gflops=1.0, memory_mib=1, uplink_mbps=8.0, downlink_mbps=16.0)
    assert (device.resolve({}).uplink_bytes_s, device.resolve({}).downlink_bytes_s) == (1_000_000, 2_000_000)
    with pytest.raises(BadConfig, match="device 'a': the key 'memory_mib' is missing; give it, or a kind"):
        DeviceConfig(name="a", train_gflops=1.0).resolve({})


def test_an_unknown_kind_is_answered_with_the_likeliest_one() -> None:
    with pytest.raises(BadConfig, match="device 'a': unknown kind 'raspberry'; did you mean 'raspberry-pi-4'"):
        DeviceConfig(name="a", kind="raspberry").resolve({"raspberry-pi-4": PI, "laptop": PI})


def test_a_rate_becomes_whole_bytes() -> None:
    assert bytes_per_second(0.1) == 12_500
