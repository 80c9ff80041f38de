"""What happens on a device, for whoever wants to check, count or show it: `Probe`."""

from typing import TYPE_CHECKING

from crowd.agreement.ack import Ack, StateProgress
from crowd.agreement.state import Active, State
from crowd.planning.round_plan import RoundPlan
from crowd.protocol.codec import Opened, Reason
from crowd.protocol.messages import Cargo, Contribution, MergedSlice
from crowd.units import Address, DeviceId, Life

if TYPE_CHECKING:
    import torch

    from crowd.learning.replica import ReplicaState


class Probe:
    """Is told what happens on one device, a method per fact; each does nothing until a subclass overrides it.

    All are called on the event loop, in the order in which things happen, by the actor to which they happen. They must
    return at once and not raise, and must not write to what they are given: tensors and states are the device's own.
    """

    def life_began(self, life: Life) -> None:
        """The actors start, for the first time or anew after a failure, and know nothing of an earlier life."""

    # --- the agreement ------------------------------------------------------------------------------------------------

    def agreement_moved(self, state: State) -> None:
        """The agreement has taken something in, and this is what it knows now. What follows from it is told next."""

    def promised(self, ack: Ack) -> None:
        """The device promises to follow a plan, to all or again to one who lacks it. It is of the present view."""

    def activated(self, active: Active) -> None:
        """Every member has promised the plan, and the device begins it."""

    def accepted(self, progress: StateProgress) -> None:
        """A round of the plan that was last activated may be completed: no later plan is promised."""

    def probed(self, suspect: DeviceId) -> None:
        """The device asks one that has been silent whether it lives."""

    def evicted(self, departed: DeviceId, reason: str) -> None:
        """The device declares another one gone."""

    def suspended(self, device: DeviceId) -> None:
        """The device declares that another one stands still, so that it has no part in what follows until it goes
        on."""

    # --- messages and transfers ---------------------------------------------------------------------------------------

    def let_in(self, address: Address, opened: Opened) -> None:
        """A message that came on `address` is for this device, of a member, and has not come before."""

    def refused(self, sender: DeviceId, reason: Reason) -> None:
        """A message in the name of `sender` is not let in: no member of that name has signed it (`BAD_SIGNATURE`), or
        it is of another version of the protocol (`WRONG_VERSION`)."""

    def sent(self, destination: DeviceId | None, cargo: Cargo, data: bytes) -> None:
        """A transfer to one device, or to all, begins."""

    # --- training -----------------------------------------------------------------------------------------------------

    def order_drawn(self, generation: int) -> None:
        """The samples that the plan of this generation assigns are in the order of its first epoch; from here on they
        are what the device trains."""

    def contributed(self, header: Contribution, data: bytes) -> None:
        """What was trained in a round is encoded for one slice of the state, which this device or another merges."""

    def merged(self, round_plan: RoundPlan, header: MergedSlice, data: bytes) -> None:
        """This device, a slice's owner in the round of this plan, has averaged what came for it, and tells whoever is
        to apply it."""

    def completed(
        self,
        active: Active,
        *,
        before: "ReplicaState",
        after: "ReplicaState",
        trained: "torch.Tensor | None",
        residual: "torch.Tensor",
    ) -> None:
        """A round is complete: the state of the run went from `before` to `after`. `trained` (elements,) float32 is the
        delta of this device's own steps in it, sent or not; `None` if there were none, or if the plan is asynchronous
        and steps belong to no one round. `residual` (elements,) is what is left to be sent later."""

    def round_abandoned(self, residual: "torch.Tensor") -> None:
        """Another plan begins: what was sent in a round that is not complete counts for nothing. `residual` (elements,)
        is still to be sent."""

    def residual_dropped(self) -> None:
        """The state will be replaced, and what was still to be sent is given up: nobody knows what became of it."""

    def state_replaced(self, state: "ReplicaState", residual: "torch.Tensor") -> None:
        """The state does not follow from the one before: a run begins, or another device's state was fetched.
        `residual` (elements,) is nothing but zeros."""

    def saved(self, progress: StateProgress) -> None:
        """A state that has come so far is in the device's store, beside the one that was saved before."""

    def resumed(self, state: "ReplicaState", residual: "torch.Tensor") -> None:
        """The run goes on from a state that a former life has saved, and so does this device with the `residual`
        (elements,) that it had then."""
