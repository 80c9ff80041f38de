"""`crowd plan`: what a cluster would do, and why."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from crowd.cli.cluster import load_policy, make_profiles, read_cluster
from crowd.cli.terminal import idle_lines
from crowd.formatting import seconds, size
from crowd.logs import logs_to_stderr
from crowd.planning.convergence import NOMINAL_EPOCHS
from crowd.planning.estimate import estimate
from crowd.planning.plan import Plan
from crowd.planning.policy import Cluster, decide
from crowd.planning.profile import Profile
from crowd.units import SECOND_US, DeviceId


def plan(cluster: Path, /, *, task: str = "fashion", policy: str = "crowd_learning") -> None:
    """Print what a cluster would do and why, and train nothing.

    Parameters
    ----------
    cluster
        A cluster file.
    task
        A built-in task, or module:function.
    policy
        The policy that plans.
    """
    config, kinds = read_cluster(cluster)
    logs_to_stderr()
    profiles = make_profiles(config, kinds, task=task, policy=policy)
    decided = decide(profiles, {policy: load_policy(policy)})
    console = Console()
    console.print(_table(f"{config.name}, {task}, {policy}", decided, profiles))
    console.print(*_summary(decided, profiles), sep="\n", soft_wrap=True, highlight=False)


def _table(title: str, decided: Plan, profiles: tuple[Profile, ...]) -> Table:
    table = Table(title=title)
    table.add_column("device", no_wrap=True)
    for heading in ("GFLOP/s", "holds", "trains", "lends", "borrows", "a round", "merges"):
        table.add_column(heading, justify="right")
    for profile in sorted(profiles, key=lambda profile: -profile.speed_kflops):
        table.add_row(*_row(decided, profile))
    return table


def _row(decided: Plan, profile: Profile) -> tuple[str, ...]:
    """The table row of one device: samples that it holds, trains in an epoch, lends, borrows and trains in a round; its
    part of the state to merge."""
    device = profile.device
    mine = [assignment for assignment in decided.assignments if device in (assignment.lender, assignment.trainer)]
    trains = sum(assignment.samples for assignment in mine if assignment.trainer == device)
    lends = sum(assignment.samples for assignment in mine if assignment.trainer != device)
    borrows = sum(assignment.samples for assignment in mine if assignment.lender != device)
    trainer = decided.trainer(device)
    return (
        device,
        f"{profile.speed_kflops / 1e6:.1f}",
        *(_count(count) for count in (profile.samples, trains, lends, borrows)),
        _count(trainer.round_samples if trainer else 0),
        _merged(decided, device),
    )


def _count(samples: int) -> str:
    return f"{samples:,}" if samples else "-"


def _merged(decided: Plan, device: DeviceId) -> str:
    whole = sum(owned.stop - owned.start for owned in decided.slices)
    own = sum(owned.stop - owned.start for owned in decided.slices if owned.owner == device)
    return f"{own / whole:.0%}" if own else "-"


def _summary(decided: Plan, profiles: tuple[Profile, ...]) -> list[str]:
    lines = [f"left out: {out.device}, {out.reason}" for out in decided.left_out]
    lines += idle_lines(decided.idle_by_device())
    if decided.has_work:
        members = {member.device for member in decided.members}
        fit = tuple(sorted((profile for profile in profiles if profile.device in members), key=lambda p: p.device))
        cost = estimate(Cluster(members=fit, prefer=fit[0].prefer, seed=decided.seed), decided)
        times_us = (decided.round_us, cost.sync_us, cost.ship_us, cost.total_us)
        a_round, merge, moves, total = (seconds(time_us / SECOND_US) for time_us in times_us)
        lines += [
            f"a round: {a_round}, of which {merge} to merge as {decided.encoding.value}; moving samples first: {moves}",
            f"estimate to the target: {total}, {cost.rounds} rounds, {size(cost.bytes_total)} on all "
            f"links, up and down, if the task takes one device at most {NOMINAL_EPOCHS} epochs (crowd sim finds out)",
        ]
    return [*lines, f"why: {decided.why}"]
