"""Heartbeats sent and heard: signs of life that also say which view and generation their sender has."""

import attrs

from crowd.agreement import failure_detector, predicates, stalls
from crowd.agreement.events import BeatHeard, SendBeat
from crowd.agreement.turn import Turn


def hear(turn: Turn, beat: BeatHeard) -> None:
    """Take in a heartbeat of any device: an own one shows that messages get through the broker."""
    state = turn.state
    if beat.device == state.me:
        if beat.life == state.own.profile.life:
            stalls.notice_deafness(turn)
            turn.detector = attrs.evolve(state.detector, round_trip_us=state.now_us, rtt_us=beat.rtt_us)
        return
    if failure_detector.is_evicted_alive(turn, beat.device, beat.life):
        return
    profile = state.view.profiles.get(beat.device)
    if profile is None or beat.life > profile.life:
        turn.ask_for_view(beat.device)
        return
    if beat.life == profile.life and state.view.is_living(beat.device):
        failure_detector.note_sign_of_life(turn, beat.device)
        known = max(state.acks.generation_known, beat.generation)
        turn.acks = attrs.evolve(turn.acks, generation_known=known)
        if beat.view_digest != state.view.digest:
            turn.ask_for_view(beat.device)
        own_ack = state.acks.own_ack
        if beat.generation != (own_ack.ack.generation if own_ack is not None else 0):
            turn.resend_ack(beat.device)


def send_due(turn: Turn) -> None:
    """Send a heartbeat when one is due, and with it from time to time the own ack."""
    state = turn.state
    own_ack, published_us = state.acks.own_ack, state.retries.published_us
    if not state.own.connected or state.now_us < state.own.beat_due_us:
        return
    # until the first round trip, and while an ack waits for others, a lost message costs waiting time: beat faster
    eager = not state.has_round_trip or predicates.is_waiting(state)
    pause_us = min(state.beat_us, state.timing.eager_us) if eager else state.beat_us
    turn.own = attrs.evolve(state.own, beat_due_us=state.now_us + pause_us)
    generation = own_ack.ack.generation if own_ack is not None else 0
    turn.emit(SendBeat(view_digest=state.view.digest, generation=generation))
    republish_us = max(state.timing.republish_us, state.timing.republish_each_us * len(state.view.living))
    if published_us is not None and state.now_us - published_us >= republish_us:
        turn.publish_ack()  # everybody hears it, even who does not know this device, or thinks that it is dead
