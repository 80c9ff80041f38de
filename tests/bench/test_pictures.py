"""The pictures show what the runs say: marks where they ended, colours for what they are, pixels for what was done."""

import base64
import io
import re
from itertools import pairwise

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from crowd.bench.activity import PARTS, Activity
from crowd.bench.pictures import (
    COLOURS,
    COMPUTE,
    DOWN,
    LANES,
    OFF,
    UP,
    looks,
    value_over_bytes,
    value_over_time,
    who_was_busy,
)
from tests.bench.runs import run

RUNS = [
    run("a", 1.0, bytes_total=10**4),
    run("b", 10.0, bytes_total=10**8, reached=False, curve=[[2.0, 0.4, 10**3], [3.0, 0.5, 10**5]]),
    run("c", 100.0, bytes_total=10**6),
    run("d", 50.0, curve=[], final_value=None, reached=False),
]


def marks(svg: str) -> list[tuple[float, str]]:
    """From left to right where lines end, and how: `o` is of curves, `x` of two strokes."""
    shapes = dict(re.findall(r'<path id="([^"]+)" d="([^"]+)"', svg))
    found = []
    for name, x in re.findall(r'<use xlink:href="#([^"]+)" x="([^"]+)"', svg):
        if "C" in shapes[name] or shapes[name].count("M") == 2:
            found.append((float(x), "o" if "C" in shapes[name] else "x"))
    return sorted(found)


def test_lines_end_where_their_runs_did_and_in_what_they_came_to() -> None:
    for draw, ends in ((value_over_time, "oxo"), (value_over_bytes, "oox")):
        places, kinds = zip(*marks(draw(RUNS, looks("abcd"), title="t")), strict=True)
        assert "".join(kinds) == ends
        first, second = (after - before for before, after in pairwise(places))
        assert first == pytest.approx(second, rel=1e-3), "a hundred or ten times as far, on a logarithmic scale"


def test_a_metric_in_a_unit_of_its_own_is_shown_without_percent_and_no_target_without_a_line() -> None:
    of_errors = [values | {"metric": "mean absolute error", "better": "lower"} for values in RUNS]
    assert "%" in re.sub(r"<style.*?</style>", "", value_over_time(RUNS, looks("abcd"), title="t"), flags=re.DOTALL)
    svg = value_over_time([values | {"target": None} for values in of_errors], looks("abcd"), title="t")
    assert "%" not in re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    with_target = value_over_time(of_errors, looks("abcd"), title="t")
    assert with_target.count("stroke-dasharray") == svg.count("stroke-dasharray") + 1


def test_no_two_policies_look_alike_until_all_looks_are_used() -> None:
    policies = [f"p{number}" for number in range(2 * len(COLOURS) + 1)]
    found = looks(policies)
    assert len({found[policy] for policy in policies[:-1]}) == 2 * len(COLOURS)
    assert found[policies[-1]] == found[policies[0]]
    svg = value_over_time([run(policy, 2.0) for policy in policies], found, title="t")
    assert svg.count("stroke-dasharray") >= len(COLOURS)
    assert all(colour in svg for colour in COLOURS)


def test_colours_are_seen_on_white_and_on_black() -> None:
    def luminance(colour: str) -> float:
        parts = np.array(mpl.colors.to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    paper = luminance("#14181d")
    for colour in COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) >= 3.0
        assert (luminance(colour) + 0.05) / (paper + 0.05) >= 3.0


def test_each_lane_has_the_colour_and_the_strength_of_what_was_done() -> None:
    quarter = PARTS // 4

    def at(index: int, percent: int) -> list[int]:
        return [percent if part // quarter == index else 0 for part in range(PARTS)]

    busy = Activity(compute=at(0, 100), up=at(1, 50), down=at(2, 100), off=at(3, 100))
    idle = Activity(compute=[0] * PARTS, up=[0] * PARTS, down=[0] * PARTS, off=[0] * PARTS)
    svg = who_was_busy({"busy": busy, "idle": idle}, seconds=4.0, title="t")
    (png,) = re.findall(r'href="data:image/png;base64,([^"]+)"', svg)
    pixels = imread(io.BytesIO(base64.b64decode(png)))
    assert pixels.shape == (2 * sum(LANES), PARTS, 4)
    rows = dict(zip(("compute", "up", "down"), np.cumsum((0, *LANES[:2])), strict=True))

    def pixel(lane: str, index: int) -> tuple[str, float]:
        red, green, blue, alpha = pixels[rows[lane], index * quarter + 1]
        return mpl.colors.to_hex((red, green, blue)), float(alpha)

    for lane, index, colour in (("compute", 0, COMPUTE), ("down", 2, DOWN)):
        assert pixel(lane, index) == (colour, 1.0)
    assert pixel("up", 1)[0] == UP
    assert 0.2 < pixel("up", 1)[1] < 0.9, "half of that time"
    for lane in rows:
        assert pixel(lane, 3)[0] == OFF
        assert pixel(lane, 3)[1] == pytest.approx(0.5, abs=0.01)
    for lane, index in (("compute", 1), ("up", 0), ("down", 1)):
        assert pixel(lane, index)[1] == pytest.approx(0.1, abs=0.01), "idle"
    assert len(np.unique(pixels[sum(LANES) :, :, 3])) == 2, "an idle device's lanes, and the gap below"
