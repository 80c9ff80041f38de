"""Questions about a state that several rules of the agreement ask. Nothing here changes anything."""

from collections.abc import Iterator

from crowd.agreement.ack import Ack
from crowd.agreement.events import BeatHeard
from crowd.agreement.state import OwnAck, State
from crowd.planning.plan import Member
from crowd.planning.profile import Share
from crowd.units import DeviceId, Life

_STRICTNESS = {Share.RAW: 0, Share.FEATURES: 1, Share.NEVER: 2}


# --- acks of others ---------------------------------------------------------------------------------------------------


def matches(theirs: Ack | None, mine: Ack, life: Life) -> bool:
    """Whether another device's ack, given in `life`, is for the same plan, view and generation as `mine`."""
    return (
        theirs is not None
        and theirs.generation == mine.generation
        and theirs.life == life
        and theirs.view_digest == mine.view_digest
        and theirs.plan_digest == mine.plan_digest
    )


def has_acked(state: State, member: Member, view_digest: bytes) -> bool:
    """Whether the latest ack of another device is of that life, for the plan of this view."""
    ack = state.acks.latest.get(member.device)
    return ack is not None and ack.life == member.life and ack.view_digest == view_digest


def disagrees(mine: Ack, theirs: Ack) -> bool:
    """Whether the same view gave another plan there: one of the two devices computes wrongly."""
    same_ballot = theirs.generation == mine.generation and theirs.view_digest == mine.view_digest
    return same_ballot and theirs.plan_digest != mine.plan_digest


def missing_acks(state: State) -> Iterator[DeviceId]:
    """Living members whose matching ack the own one still waits for."""
    own_ack = state.acks.undecided
    if own_ack is None:
        return
    for member in own_ack.plan.members:
        theirs = state.acks.latest.get(member.device)
        if not matches(theirs, own_ack.ack, member.life) and _is_awaited(state, member):
            yield member.device


def _is_awaited(state: State, member: Member) -> bool:
    """Whether that life of another device is still there to give its ack."""
    living = state.view.is_living(member.device) and state.view.profiles[member.device].life == member.life
    return living and member.device != state.me


def awaits_several(state: State, own_ack: OwnAck) -> bool:
    """Whether more than one member's matching ack is missing for certain: there are fewer for that ballot at all."""
    if state.acks.undecided is None:
        return False
    others = state.acks.tally.get(own_ack.ballot, 0)
    return len(own_ack.plan.members) - 1 - others > 1


def is_waiting(state: State) -> bool:
    """Whether the own ack still waits for a matching one."""
    own_ack = state.acks.own_ack
    if own_ack is not None and own_ack.ack.view_digest == state.view.digest and awaits_several(state, own_ack):
        return True  # the members of that plan are all there
    return any(True for _ in missing_acks(state))


def joinable_generation(state: State) -> int:
    """The highest generation that another device has acked for the present view; 0 if none."""
    digest = state.view.digest
    return max((generation for generation, view_digest in state.acks.tally if view_digest == digest), default=0)


def most_advanced_stranger(state: State) -> DeviceId | None:
    """The device whose ack shows that it knows something that is not known here: the most advanced, by lowest ID. The
    view of the own ack is no news here, whatever was learned since."""
    own_ack = state.acks.own_ack
    mine, known = (0, b"") if own_ack is None else own_ack.ballot
    unknown = {ballot for ballot in state.acks.tally if ballot[0] >= mine and ballot[1] != known}
    if all(view_digest == state.view.digest for _, view_digest in unknown):
        return None
    ahead = [
        (-ack.generation, device)
        for device, ack in state.acks.latest.items()
        if (ack.generation, ack.view_digest) in unknown
        and ack.view_digest != state.view.digest
        and state.view.is_living(device)
    ]
    return min(ahead)[1] if ahead else None


# --- the own ack ------------------------------------------------------------------------------------------------------


def may_ack(state: State) -> bool:
    """Whether this device may ack any plan of the present view now."""
    own, view = state.own, state.view
    if not own.connected or own.returns_us is not None or not view.is_living(state.me):
        return False
    if view.profiles[state.me] != own.profile:
        return False  # the view names another life of this device: its acks are not this one's to give
    if own.progress.run != own.profile.run:
        return False  # the state of this run is still being made, and an ack names the state that its device holds
    return state.now_us - state.view_changed_us >= state.debounce_us and not any(
        map(view.is_living, state.detector.probes_us)
    )


def may_leave_round(state: State) -> bool:
    """Whether an ack need not wait for the end of the round in hand."""
    active, own_ack = state.acks.active, state.acks.own_ack
    if active is None or own_ack is None or state.frozen or not state.running:
        return True
    living = {profile.device: profile for profile in state.view.living}
    for member in active.plan.members:
        profile = living.get(member.device)
        if profile is None or profile.life != member.life or member.device in state.view.suspended:
            return True
        share, memory_bytes = own_ack.rules[member.device]
        if _STRICTNESS[profile.share] > _STRICTNESS[share] or profile.memory_bytes < memory_bytes:
            return True
    # who has promised before the round in hand cannot complete it any more; who has completed a later one shows that
    # this device is behind, and perhaps stands still: it is no use to wait for it
    in_hand = (state.own.progress.run, state.own.progress.round + 1)
    return any(
        ack.generation > active.generation and (ack.progress.run, ack.progress.round) != in_hand
        for ack in state.acks.latest.values()
        if active.plan.life_of(ack.device) == ack.life
    )


def may_be_in_a_round(state: State, device: DeviceId) -> bool:
    """Whether the known life of `device` has given another ack before: it may have begun that plan."""
    ack = state.acks.latest.get(device)
    return ack is not None and ack.life == state.view.profiles[device].life


# --- messages that change nothing -------------------------------------------------------------------------------------


def is_former_life(state: State, device: DeviceId, life: Life) -> bool:
    """Whether a later life of `device` is known than this one, whose messages have no effect any more."""
    known = state.view.profiles.get(device)
    return known is not None and life < known.life


def ack_changes_nothing_yet(state: State, ack: Ack) -> bool:
    """Whether a member repeats a known ack, or gives a first matching ack while others are still missing."""
    own_ack, profile = state.acks.own_ack, state.view.living_profile(ack.device)
    if own_ack is None or profile is None or not matches(ack, own_ack.ack, profile.life):
        return False
    known = state.acks.latest.get(ack.device)
    return (awaits_several(state, own_ack) and not matches(known, own_ack.ack, ack.life)) or known == ack


def beat_says_nothing_new(state: State, beat: BeatHeard) -> bool:
    """Whether another device, which nobody suspects, has the view and the generation of this one."""
    profile = state.view.living_profile(beat.device)
    own_ack = state.acks.own_ack
    return (
        beat.device != state.me
        and profile is not None
        and profile.life == beat.life
        and beat.view_digest == state.view.digest
        and own_ack is not None
        and beat.generation == own_ack.ack.generation <= state.acks.generation_known
        and beat.device not in state.detector.probes_us
        and beat.device not in state.detector.offline
    )
