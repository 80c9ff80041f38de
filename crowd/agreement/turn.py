"""One call of `step` while it is made: `Turn`, the state as it develops and the effects so far."""

import attrs

from crowd.agreement.events import AskView, Effect, PublishAck, SendAck
from crowd.agreement.state import Acks, Decide, FailureDetector, Own, Retries, Retry, State
from crowd.agreement.suspension import Stalls
from crowd.units import DeviceId


class Turn:
    """The state as it develops, and the effects so far. Each record of the state is replaced by assignment."""

    def __init__(self, state: State, decide: Decide) -> None:
        self.state = state
        self.decide = decide
        self.effects: list[Effect] = []

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    @property
    def own(self) -> Own:
        return self.state.own

    @own.setter
    def own(self, own: Own) -> None:
        self.state = attrs.evolve(self.state, own=own)

    @property
    def acks(self) -> Acks:
        return self.state.acks

    @acks.setter
    def acks(self, acks: Acks) -> None:
        self.state = attrs.evolve(self.state, acks=acks)

    @property
    def detector(self) -> FailureDetector:
        return self.state.detector

    @detector.setter
    def detector(self, detector: FailureDetector) -> None:
        self.state = attrs.evolve(self.state, detector=detector)

    @property
    def stalls(self) -> Stalls:
        return self.state.stalls

    @stalls.setter
    def stalls(self, stalls: Stalls) -> None:
        self.state = attrs.evolve(self.state, stalls=stalls)

    @property
    def retries(self) -> Retries:
        return self.state.retries

    @retries.setter
    def retries(self, retries: Retries) -> None:
        self.state = attrs.evolve(self.state, retries=retries)

    # --- messages that may be repeated --------------------------------------------------------------------------------

    def may_send(self, last: Retry | None) -> bool:
        """Whether a message that was last sent then, or never, may be sent now."""
        return last is None or self.state.now_us >= last.due_us(self.state.timing, self.detector.rtt_us)

    def sent(self, last: Retry | None) -> Retry:
        """The record of a message that is sent now."""
        now_us = self.state.now_us
        return (
            Retry(sent_us=now_us) if last is None else last.sent_again(self.state.timing, self.detector.rtt_us, now_us)
        )

    def ask_for_view(self, device: DeviceId) -> None:
        """Ask `device` for what it knows, unless that was done a moment ago."""
        requests = self.retries.view_requests
        if self.may_send(requests.get(device)):
            requests = {**requests, device: self.sent(requests.get(device))}
            self.retries = attrs.evolve(self.retries, view_requests=requests)
            self.emit(AskView(device=device))

    def publish_ack(self) -> None:
        """Publish the ack that was given last, if any."""
        own_ack = self.acks.own_ack
        if own_ack is not None:
            self.retries = attrs.evolve(self.retries, published_us=self.state.now_us, resends={})
            self.emit(PublishAck(ack=own_ack.ack))

    def resend_ack(self, device: DeviceId) -> None:
        """Send the ack that was given last to `device`, which may have missed it, unless that was done a moment ago."""
        own_ack, resends = self.acks.own_ack, self.retries.resends
        if own_ack is not None and self.may_send(resends.get(device)):
            resends = {**resends, device: self.sent(resends.get(device))}
            self.retries = attrs.evolve(self.retries, resends=resends)
            self.emit(SendAck(device=device, ack=own_ack.ack))
