"""When a processor was busy."""

import anyio

from crowd.experiment.metering import LinkBusy, MeteredCompute, Occupancy, Span
from devices.emulated import VirtualCompute
from tests.support.virtual import virtual_time

KFLOP = 1000


@virtual_time
async def test_pieces_of_training_are_noted_with_their_time_and_nothing_else_is() -> None:
    compute = MeteredCompute(VirtualCompute(100))
    await compute.run(lambda: None, flops=200 * KFLOP)
    await compute.run(lambda: None)
    await anyio.sleep(1)
    await compute.run(lambda: None, flops=100 * KFLOP)
    assert compute.spans == (
        Span(began_s=0, ended_s=2, flops=200 * KFLOP),
        Span(began_s=3, ended_s=4, flops=100 * KFLOP),
    )
    assert compute.busy_s == 3


@virtual_time
async def test_a_piece_in_hand_is_busy_time_and_one_that_is_cut_short_came_to_nothing() -> None:
    compute = MeteredCompute(VirtualCompute(100))
    with anyio.move_on_after(1):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: compute.run(lambda: None, flops=300 * KFLOP))
            await anyio.sleep(0.5)
            assert (compute.busy_s, compute.spans) == (0.5, ())
    assert compute.spans == (Span(began_s=0, ended_s=1, flops=0),)
    assert compute.busy_s == 1


def test_what_the_processor_leaves_out_it_says_through_its_meter() -> None:
    assert not MeteredCompute(VirtualCompute(100, executes=False)).executes
    assert MeteredCompute(VirtualCompute(100)).executes


def test_uses_that_follow_upon_each_other_are_one_and_a_gap_parts_them() -> None:
    link = Occupancy()
    link.note(ended_s=1.0, took_s=0.5)
    link.note(ended_s=2.0, took_s=1.0)
    link.note(ended_s=4.0, took_s=0.5)
    assert link.spans == ((0.5, 2.0), (3.5, 4.0))
    assert LinkBusy(up=link.spans, down=()).since(0.5).up == ((0.0, 1.5), (3.0, 3.5))
