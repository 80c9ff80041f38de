"""The pictures of the comparison as SVG to be put into a page, in ink of the page's own colour."""

import html
import io
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import attrs
import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from crowd.bench.activity import PARTS, Activity
from crowd.bench.runs import Run
from crowd.formatting import size
from crowd.metric_facts import FRACTIONS

COLOURS = ("#3c4bff", "#c38700", "#c31e3c", "#3ca587", "#964b96", "#0096ff")
"""The colours of policies. Each has a contrast of 3 on white and on the page's black, and differs from the others by 30
at the least (CIE 1976), also for people with red or green blindness."""
COMPUTE, UP, DOWN, OFF = "#2e86de", "#e4572e", "#29a36a", "#808080"

_INK = "#010203"
"""Placeholder that becomes the page's colour of text."""
_STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": _INK,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify_threshold": 0.5,
    "image.composite_image": False,
}
DASHES: Any = (0, (3.5, 1.5))
LANES = (4, 2, 2, 2)
"""Rows of pixels of each device: computing, sending, receiving, nothing."""


@attrs.frozen
class Look:
    """The style of a policy's lines."""

    colour: str
    dashed: bool


def looks(policies: Sequence[str]) -> dict[str, Look]:
    """The styles of `policies`; more policies than twice the colours share them."""
    every = [Look(colour, dashed) for dashed in (False, True) for colour in COLOURS]
    return dict(zip(policies, itertools.cycle(every)))


def value_over_time(runs: Sequence[Run], look: Mapping[str, Look], *, title: str) -> str:
    """The picture of the metric over time, as SVG. A line for each run of which anything was evaluated; that of the
    first seed is thicker. It ends when the run did, in a dot where the target was reached, else in a cross."""
    return _values(runs, look, title, column=0, end="seconds_total", label="time since the first plan", words=_seconds)


def value_over_bytes(runs: Sequence[Run], look: Mapping[str, Look], *, title: str) -> str:
    """The picture of the metric over the bytes on all links, as SVG; else as `value_over_time`."""
    return _values(runs, look, title, column=2, end="bytes_total", label="bytes on all links", words=_size)


def _values(
    runs: Sequence[Run],
    look: Mapping[str, Look],
    title: str,
    *,
    column: int,
    end: str,
    label: str,
    words: Callable[[float], str],
) -> str:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.0), layout="constrained")
        axes = figure.add_subplot()
        first_seed = min(run["seed"] for run in runs)
        for run in runs:
            points = [(point[column], point[1]) for point in run["curve"] if point[column] > 0]
            if points:
                points.append((run[end], points[-1][1]))
                _line(axes, points, look[run["policy"]], reached=run["reached"], first=run["seed"] == first_seed)
        targets = [run["target"] for run in runs if run["target"] is not None]
        if targets:
            axes.axhline(max(targets), color=_INK, linewidth=0.7, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        if runs[0]["metric"] in FRACTIONS:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axes.set_xlabel(label)
        axes.grid(True, color="#808080", alpha=0.2, linewidth=0.5)
        return _svg(figure, title)


def _line(axes: Axes, points: list[tuple[float, float]], look: Look, *, reached: bool, first: bool) -> None:
    along, values = zip(*points, strict=True)
    weight = 1.0 if first else 0.45
    axes.plot(
        along,
        values,
        color=look.colour,
        linestyle=DASHES if look.dashed else "-",
        linewidth=1.4 * weight,
        alpha=weight,
        solid_joinstyle="round",
    )
    marker = "o" if reached else "x"
    axes.plot(along[-1], values[-1], marker, color=look.colour, markersize=4 * weight + 1, alpha=weight)


def who_was_busy(activity: Mapping[str, Activity], *, seconds: float, title: str) -> str:
    """The picture of the devices' activity, as SVG. A band for each device: computing above, sending and receiving
    below; grey while it was switched off."""
    rows = [_band(device) for device in activity.values()]
    band = sum(LANES)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.8, 0.55 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        height = band * len(rows)
        axes.imshow(np.concatenate(rows), interpolation="none", aspect="auto", extent=(0, seconds, height, 0))
        axes.set_yticks([band * index + (band - LANES[-1]) / 2 for index in range(len(rows))], list(activity))
        axes.tick_params(axis="y", length=0)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _seconds(value)))
        axes.spines["left"].set_visible(False)
        return _svg(figure, title)


def _band(device: Activity) -> np.ndarray:
    """The pixels of one device's band: (sum of LANES, PARTS, RGBA)."""
    above, sending, receiving, gap = LANES
    idle = np.zeros((sum(LANES), PARTS, 4))
    idle[: -gap or None] = (0.5, 0.5, 0.5, 0.10)
    _paint(idle[:above], device.compute, COMPUTE)
    _paint(idle[above : above + sending], device.up, UP)
    _paint(idle[above + sending : above + sending + receiving], device.down, DOWN)
    _paint(idle[: -gap or None], device.off, OFF, most=0.5)
    return idle


def _paint(lane: np.ndarray, percents: Sequence[int], colour: str, *, most: float = 1.0) -> None:
    """Paint as much of `colour` as there is of each part into `lane`; `most` is how strong the whole of a part is."""
    share = np.clip(np.array(percents) / 100.0, 0.0, 1.0)
    lane[:, share > 0.0, :3] = mpl.colors.to_rgb(colour)
    lane[:, :, 3] = np.maximum(lane[:, :, 3], most * share**0.6)


def _seconds(value: float) -> str:
    return f"{value:,.10g} s"


def _size(value: float) -> str:
    return size(round(value)).replace(".0 ", " ")


def _svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element, without what makes files of it, with names of its own for what it refers to
    inside."""
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": title}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[a-z0-9]+_\d+(?:\.\d+)?"', "", text)
    names = "|".join(_names(text))
    if names:
        text = re.sub(rf'(id="|href="#|url\(#)({names})\b', rf"\1{_prefix(text)}-\2", text)
    text = re.sub(r"\n\s*", "\n", text).replace(_INK, "currentColor")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1)


def _prefix(text: str) -> str:
    """The prefix of one picture's names; pictures that share it are the same."""
    return f"p{blake2b(text.encode(), digest_size=6).hexdigest()}"


def _names(text: str) -> Iterator[str]:
    return (re.escape(name) for name in sorted(set(re.findall(r' id="([^"]+)"', text)), reverse=True))
