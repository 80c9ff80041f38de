"""What can be said of a node before torch is loaded, which takes seconds on a small device: `check_without_torch`, and
`check_broker`."""

import structlog

from crowd import plugins
from crowd.config.node_file import NodeConfig
from crowd.errors import BadConfig, BrokerLost
from crowd.ports import Broker
from crowd.protocol.identity import read_members, read_signer
from crowd.units import device_id

log = structlog.get_logger()


def check_without_torch(config: NodeConfig) -> Broker:
    """The node's broker, without a word to it. Raises `BadConfig` for keys, members, names of plug-ins, state directory
    or address with which this node can never work."""
    name = device_id(config.name)
    read_signer(name, key_file=config.key_file, members_file=config.members_file)
    assert config.members_file is not None, "read_signer wants it"
    members = read_members(config.members_file)
    if config.members_min > len(members):
        raise BadConfig(
            f"members_min = {config.members_min}, but {config.members_file} names {len(members)}: "
            f"{', '.join(sorted(members))}; lower members_min, or add the others' lines"
        )
    plugins.policies.load(config.policy)
    plugins.devices.load(config.device)
    if ":" not in config.task:
        plugins.tasks.module_of(config.task)
    plugins.stores.load("file")(config.state_dir).check(0)
    return plugins.broker_from_url(
        config.broker,
        cluster=config.cluster,
        device=name,
        username=config.username,
        password=config.read_password(),
        ca_file=config.ca_file,
    )


async def check_broker(broker: Broker) -> None:
    """Raise `BrokerRefused` for a password with which this node can never work. A broker that is out of reach may be
    there later: that is a warning."""
    try:
        async with broker.session():
            pass
    except BrokerLost as error:
        log.warning("broker_not_reached", error=str(error))
