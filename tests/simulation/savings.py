"""What is on the devices' disks of their runs, and that none of it is lost: `Savings`."""

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active
from crowd.units import DeviceId, Life
from tests.simulation.checks import Findings


class Savings:
    """A plan never begins before what one of its members has saved of earlier ones. A run never begins with an older
    model than one of them has; and none but the first begins, unless the one before has ended and somebody asked for
    it."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._saved: dict[DeviceId, list[StateProgress]] = {}
        """The last two of each device, if they can be read."""
        self._begun: set[tuple[int, bytes]] = set()
        self._promised: dict[tuple[DeviceId, Life, int], tuple[StateProgress, ...]] = {}
        """What it had saved when it promised to follow a plan."""
        self._asked: set[int] = set()
        self._ended: set[int] = set()

    def saved(self, device: DeviceId, progress: StateProgress) -> None:
        self._saved[device] = [*self._saved.get(device, [])[-1:], progress]

    def lost(self, device: DeviceId) -> None:
        """Its disk is gone."""
        self._saved.pop(device, None)

    def promised(self, device: DeviceId, ack: Ack) -> None:
        """The device gives this ack, perhaps not for the first time. What it saves from now on follows from that
        generation, or from a later one."""
        self._promised.setdefault((device, ack.life, ack.generation), tuple(self._saved.get(device, ())))

    def ended(self, run: int) -> None:
        """A device has the final state of this run."""
        self._ended.add(run)

    def asked(self, run: int) -> None:
        """Somebody asks for this run."""
        self._asked.add(run)

    def damaged(self, device: DeviceId) -> None:
        """What it saved last cannot be read any more."""
        self._saved[device] = self._saved.get(device, [])[:-1]

    def began(self, device: DeviceId, active: Active) -> None:
        """The device begins this plan; others may have completed rounds of it."""
        plan = (active.generation, active.plan_digest)
        if plan in self._begun:
            return
        self._begun.add(plan)
        self._check_run(device, active)
        for member in active.plan.members:
            for progress in self._promised.get((member.device, member.life, active.generation), ()):
                if progress > active.start:
                    self._findings.add(
                        f"{device} begins generation {active.generation} at round {active.start.round} of run "
                        f"{active.start.run}, though {member.device} has saved round {progress.round} of run "
                        f"{progress.run}"
                    )

    def _check_run(self, device: DeviceId, active: Active) -> None:
        start = active.start
        members = {
            member.device: self._promised.get((member.device, member.life, active.generation), ())
            for member in active.plan.members
        }
        if start.run > 1 and start.run not in self._asked:
            self._findings.add(f"{device} begins run {start.run}, for which nobody has asked")
        if start.run > 1 and start.run - 1 not in self._ended:
            self._findings.add(f"{device} begins run {start.run}, though the one before has not ended")
        if start.round:
            return
        for member, saved in members.items():
            for progress in saved:
                if progress.finished and start.base < progress.run < start.run:
                    self._findings.add(
                        f"{device} begins run {start.run} with the model of run {start.base}, though {member} has that "
                        f"of run {progress.run}"
                    )
