"""What is on the devices' disks of a run, and that none of it is lost: `Savings`."""

from crowd.agreement.ack import StateProgress
from crowd.agreement.state import Active
from crowd.units import DeviceId
from tests.simulation.checks import Findings


class Savings:
    """A plan never begins before what one of its members has saved of earlier ones."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._saved: dict[DeviceId, list[StateProgress]] = {}
        """The last two of each device, if they can be read."""
        self._begun: set[tuple[int, bytes]] = set()

    def saved(self, device: DeviceId, progress: StateProgress) -> None:
        self._saved[device] = [*self._saved.get(device, [])[-1:], progress]

    def lost(self, device: DeviceId) -> None:
        """Its disk is gone."""
        self._saved.pop(device, None)

    def damaged(self, device: DeviceId) -> None:
        """What it saved last cannot be read any more."""
        self._saved[device] = self._saved.get(device, [])[:-1]

    def began(self, device: DeviceId, active: Active) -> None:
        """The device begins this plan; others may have completed rounds of it."""
        plan = (active.generation, active.plan_digest)
        if plan in self._begun:
            return
        self._begun.add(plan)
        for member in active.plan.members:
            for progress in self._saved.get(member.device, []):
                if progress > active.start:
                    self._findings.add(
                        f"{device} begins generation {active.generation} at round {active.start.round} of run "
                        f"{active.start.run}, though {member.device} has saved round {progress.round} of run "
                        f"{progress.run}"
                    )
