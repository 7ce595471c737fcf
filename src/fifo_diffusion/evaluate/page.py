"""An evaluation as one HTML page that holds everything itself: tables, plots, contact sheets, in light and dark."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

import numpy as np

from fifo_diffusion.evaluate.means import mean_and_error
from fifo_diffusion.evaluate.plots import COLOURS, Line, number, plot, plus_minus
from fifo_diffusion.evaluate.result import About, Evaluation, Mean, SetResult, VideoResult
from fifo_diffusion.evaluate.sheets import Sheet
from fifo_diffusion.evaluate.style import SCRIPT, STYLE

BY_VIDEO = COLOURS  # up to so many videos of one set have lines of their own
POINTS = 128  # of the mean line of a set
LISTED = 12  # of a fact's entries, the rest is counted

ARROW = {"higher": "↑", "lower": "↓", "neither": ""}
BETTER = {"higher": "higher is better", "lower": "lower is better", "neither": "neither way is better"}


def page(found: Evaluation, sheets: Mapping[str, Sheet]) -> str:
    """sheets: by the video's path."""
    return "".join(_page(found, sheets))


def _page(found: Evaluation, sheets: Mapping[str, Sheet]) -> Iterator[str]:
    names = ", ".join(one.name for one in found.sets)
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
    yield f'content="light dark"><title>{escape(names)} · fifo evaluate</title><style>{STYLE}</style></head><body>'
    yield from _head(found)
    yield from _summary(found)
    yield from _distances(found)
    yield from _over_time(found)
    yield from _videos(found, sheets)
    yield from _table(found)
    yield from _about(found)
    yield f"<script>{SCRIPT}</script></body></html>\n"


def _head(found: Evaluation) -> Iterator[str]:
    videos = [video for one in found.sets for video in one.videos]
    frames = sum(video.frames for video in videos)
    yield f"<header><h1>Evaluation of {escape(', '.join(one.name for one in found.sets))}</h1><p class=lead>"
    yield f"{_count(len(videos), 'video')}, {_count(frames, 'frame')}, {_count(len(found.quantities), 'quantity')}"
    yield f" · <b class=bad>{found.failed} failed</b>" if found.failed else ""
    yield f"</p><p class=meta>{escape(found.date)} · fifo-diffusion {escape(found.fifo_diffusion)} · "
    yield escape(", ".join(f"{name} {value}" for name, value in found.machine.items()))
    yield f"<br><code>{escape(found.command)}</code></p>"
    if len(_lines(found)) > 1:
        keys = (f"<span class=key><i class=c{colour}></i>{escape(name)}</span>" for name, colour in _lines(found))
        yield f"<p class=keys>{''.join(keys)}</p>"
    yield "</header>"


def _lines(found: Evaluation) -> list[tuple[str, int]]:
    """What the plots draw, and in which colour."""
    whole = _drawn_alone(found)
    names = [video.name for video in whole] if whole else [one.name for one in found.sets]
    return [(name, i % COLOURS) for i, name in enumerate(names)]


def _drawn_alone(found: Evaluation) -> list[VideoResult]:
    """The videos that have lines of their own: those of the only set, where they are few."""
    whole = [video for video in found.sets[0].videos if video.measured] if len(found.sets) == 1 else []
    return whole if len(whole) <= BY_VIDEO else []


def _shown(found: Evaluation) -> list[About]:
    """The quantities that any video has."""
    has = {name for one in found.sets for video in one.videos for name in video.measured}
    return [quantity for quantity in found.quantities if quantity.name in has]


def _summary(found: Evaluation) -> Iterator[str]:
    """A row a quantity, a column a set."""
    shown = _shown(found)
    if not shown:
        return
    yield "<section><h2>Means</h2><div class=wide><table><thead><tr><th>quantity<th>unit"
    for one in found.sets:
        whole = sum(video.error is None for video in one.videos)
        videos = _count(whole, "video") if whole == len(one.videos) else f"{whole} of {len(one.videos)} videos"
        yield f"<th class=num>{escape(one.name)}<small>{videos}</small><th class=num>drift"
    yield "</tr></thead><tbody>"
    metric = None
    for quantity in shown:
        first = " class=first" if quantity.metric != metric else ""
        metric = quantity.metric
        best = _best(found, quantity)
        yield f'<tr{first}><th title="{escape(quantity.says)}">{escape(quantity.name)} {_way(quantity)}'
        yield f"<td class=unit>{escape(quantity.unit)}"
        for one in found.sets:
            mean = one.means.get(quantity.name)
            yield "<td class=num>–<td class=num>–" if mean is None else _mean(mean, mean is best)
        yield "</tr>"
    yield "</tbody></table></div><p class=note>Means over each video, then over the videos of a set, ± standard error "
    yield "over videos. Drift is |M(first 15 %) − M(last 15 %)| of each video. Consistency and flicker reward still "
    bold = "Bold is better than all others by more than two standard errors. " if len(found.sets) > 1 else ""
    yield f"videos: read them beside the dynamic degree. {bold}{_other_sizes(found)}</p></section>"


def _other_sizes(found: Evaluation) -> str:
    sizes = {video.size for one in found.sets for video in one.videos if video.size is not None}
    if len(sizes) < 2:
        return ""
    told = ", ".join(f"{width}×{height}" for width, height in sorted(sizes))
    return f"<b>The videos have several sizes ({told}): sharpness, flicker and warping error do not compare.</b>"


def _way(quantity: About) -> str:
    return f'<span class=way title="{BETTER[quantity.better]}">{ARROW[quantity.better]}</span>'


def _best(found: Evaluation, quantity: About) -> Mean | None:
    """The set that is better than every other by more than two standard errors of the difference."""
    means = [one.means[quantity.name] for one in found.sets if quantity.name in one.means]
    if len(means) < 2 or quantity.better == "neither":
        return None
    sign = 1 if quantity.better == "higher" else -1
    best, *others = sorted(means, key=lambda mean: -sign * mean.mean)
    return best if all(_apart(best, other) for other in others) else None


def _apart(one: Mean, other: Mean) -> bool:
    if one.error is None or other.error is None:
        return False
    return abs(one.mean - other.mean) > 2 * math.hypot(one.error, other.error)


def _mean(mean: Mean, best: bool) -> str:
    value = f"{'<b>' if best else ''}{_value(mean.mean, mean.error)}{'</b>' if best else ''}"
    drift = "–" if mean.drift is None else _value(mean.drift, mean.drift_error)
    return f"<td class=num>{value}<td class='num soft'>{drift}"


def _value(value: float, error: float | None) -> str:
    return f"{number(value)}<small>{plus_minus(error)}</small>"


def _distances(found: Evaluation) -> Iterator[str]:
    if not any(one.distances for one in found.sets):
        return
    yield f"<section><h2>Distances from {escape(found.against or 'the reference')}</h2><div class=wide><table><thead>"
    yield "<tr><th>set<th>distance<th class=num>value<th class=num>real against real<th>of</tr></thead><tbody>"
    for one in found.sets:
        for distance in one.distances:
            floor = "–" if distance.floor is None else number(distance.floor)
            about = next(quantity for quantity in found.quantities if quantity.name == distance.quantity)
            yield f"<tr><th>{escape(one.name)}<td>{escape(distance.quantity)} {_way(about)}<td class=num>"
            yield f"{_value(distance.value, distance.error)}<td class='num soft'>{floor}"
            yield f"<td class=says>{escape(distance.of)}</tr>"
    yield "</tbody></table></div><p class=note>Real against real is one half of the reference against its other "
    yield "half; of half as many clips, so a Frechet distance is too high there.</p></section>"


def _over_time(found: Evaluation) -> Iterator[str]:
    alone = _drawn_alone(found)
    level: list[str] = []
    yield "<section><h2>Over time</h2><div class=plots>"
    for quantity in _shown(found):
        if alone:
            lines = [_of_video(v, quantity.name, i) for i, v in enumerate(alone) if quantity.name in v.measured]
        else:
            lines = [line for i, one in enumerate(found.sets) if (line := _of_set(one, quantity.name, i)) is not None]
        values = {value for line in lines for value in line.values if value is not None}
        if len(values) < 2:
            level += [f"{quantity.name} {number(value)}" for value in values]
            continue
        yield f"<figure><figcaption><b>{escape(quantity.name)}</b> <span class=unit>{escape(quantity.unit)}</span> "
        yield f"{_way(quantity)}<br><small>{escape(quantity.says)}</small></figcaption>"
        yield f"{plot(lines, quantity.name)}</figure>"
    band = "" if alone else " The band is the standard error over videos."
    yield f"</div><p class=note>Shaded: the first and last 15 %, between which drift is told.{band}"
    yield f" At all times of all: {escape(', '.join(level))}." if level else ""
    yield "</p></section>"


def _of_video(video: VideoResult, name: str, colour: int) -> Line:
    measured = video.measured[name]
    frames = [(i + 0.5) * measured.frames_a_bin - 0.5 for i in range(len(measured.course))]
    return Line(video.name, colour, frames, measured.course)


def _of_set(found: SetResult, name: str, colour: int) -> Line | None:
    """The mean over the videos, at points evenly spread over the longest of them."""
    lines = [_of_video(v, name, colour) for v in found.videos if v.error is None and name in v.measured]
    if not lines:
        return None
    end = max(line.frames[-1] for line in lines)
    at = np.linspace(0, end, min(POINTS, max(len(line.frames) for line in lines)))
    resampled = [_at(line, at) for line in lines]
    pairs = [mean_and_error([v for v in values if v is not None]) for values in zip(*resampled, strict=True)]
    return Line(found.name, colour, at.tolist(), [mean for mean, _ in pairs], [error for _, error in pairs])


def _at(line: Line, at: Any) -> list[float | None]:
    """Between neighbours in a straight line; None beyond the line's end."""
    held = [(f, v) for f, v in zip(line.frames, line.values, strict=True) if v is not None]
    values = np.interp(at, [f for f, _ in held], [v for _, v in held])
    return [float(v) if f <= held[-1][0] + 1 else None for f, v in zip(at, values, strict=True)]


def _videos(found: Evaluation, sheets: Mapping[str, Sheet]) -> Iterator[str]:
    yield "<section><h2>Videos</h2>"
    for one in found.sets:
        if len(found.sets) > 1:
            yield f"<h3>{escape(one.name)}</h3>"
        shown = [video for video in one.videos if video.path in sheets or video.error]
        for video in shown:
            yield from _video(video, sheets.get(video.path))
        if hidden := len(one.videos) - len(shown):
            yield f"<p class=note>and {_count(hidden, 'video')} without a picture here; all are in the table</p>"
    yield "</section>"


def _video(video: VideoResult, sheet: Sheet | None) -> Iterator[str]:
    yield f"<article{' class=failed' if video.error else ''}><h4>{escape(video.name)}</h4>"
    if video.error:
        yield f"<p class=bad>failed: {escape(video.error)}</p>"
    if video.prompt:
        yield f"<p class=prompt>{escape(video.prompt)}</p>"
    if video.size is not None:
        width, height = video.size
        fps = "" if video.fps is None else f" · {video.fps:g} frames a second, {video.frames / video.fps:.1f} s"
        shown = "" if video.scale == 1 else f" (shown {video.scale} times larger)"
        yield f"<p class=meta>{_count(video.frames, 'frame')} · {width}×{height}{shown}{fps}</p>"
    if sheet is not None:
        yield "<div class=sheet>"
        for frame, thumb in zip(sheet.frames, sheet.thumbs, strict=True):
            shown = _picture(thumb, sheet.kind, f"frame {frame}")
            yield f"<figure>{shown}<figcaption>{frame:,}</figcaption></figure>"
        yield f"</div><div class=slit>{_picture(sheet.slit, sheet.kind, 'slit scan')}"
        yield "<small>the middle row of every frame, time to the right</small></div>"
    yield from (f"<p class=note>{escape(remark)}</p>" for remark in video.remarks)
    yield from _facts(video.facts)
    yield "</article>"


def _picture(coded: bytes, kind: str, says: str) -> str:
    return f'<img src="data:{kind};base64,{b64encode(coded).decode()}" alt="{escape(says)}" loading=lazy>'


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    told = {name: fact for name, fact in facts.items() if fact not in ([], {}, None)}
    if not told:
        return
    yield "<details><summary>what else was found: " + escape(", ".join(told)) + "</summary><dl>"
    for name, fact in told.items():
        yield f"<dt>{escape(name)}<dd>{_fact(fact)}"
    yield "</dl></details>"


def _fact(fact: Any) -> str:
    if isinstance(fact, list):
        more = f"<br>and {len(fact) - LISTED} more" if len(fact) > LISTED else ""
        between = "<br>" if any(isinstance(one, dict) for one in fact) else ", "
        return between.join(_fact(one) for one in fact[:LISTED]) + more
    if isinstance(fact, dict):
        return ", ".join(f"<span class=unit>{escape(str(key))}</span> {_fact(value)}" for key, value in fact.items())
    return number(fact) if isinstance(fact, float) else escape(str(fact))


def _table(found: Evaluation) -> Iterator[str]:
    """A row a video, to sort by a click."""
    shown = _shown(found)
    yield "<section><h2>All videos</h2><div class=wide><table class=sortable><thead><tr><th>video<th>set<th class=num>"
    yield "frames" + "".join(
        f'<th class=num title="{escape(q.says)}">{escape(q.name)}<small>{escape(q.unit)}</small>' for q in shown
    )
    yield "</tr></thead><tbody>"
    for one in found.sets:
        for video in one.videos:
            yield f"<tr{' class=failed' if video.error else ''}><th>{escape(video.name)}<td>{escape(one.name)}"
            yield f"<td class=num data-v={video.frames}>{video.frames:,}"
            yield from (_cell(video, quantity.name) for quantity in shown)
            yield "</tr>"
    yield "</tbody></table></div><p class=note>A click on a heading sorts.</p></section>"


def _cell(video: VideoResult, name: str) -> str:
    measured = video.measured.get(name)
    if measured is None:
        return "<td class=num>–"
    drift = "" if measured.drift is None else f"<small>drift {number(measured.drift)}</small>"
    return f"<td class=num data-v={measured.mean:.9g}>{number(measured.mean)}{drift}"


def _about(found: Evaluation) -> Iterator[str]:
    yield "<section><h2>What was measured</h2><div class=wide><table><tbody>"
    for quantity in found.quantities:
        way = BETTER[quantity.better]
        yield f"<tr><th>{escape(quantity.name)}<td>{escape(quantity.metric)}<td class=says>{escape(quantity.says)}"
        yield f"{f' · {way}' if quantity.better != 'neither' else ''}</tr>"
    yield "</tbody></table></div>"
    if found.unmeasured:
        yield "<h3>Not measured</h3><ul>"
        yield from (f"<li><b>{escape(one.metric)}</b>: {escape(one.why)}" for one in found.unmeasured)
        yield "</ul>"
    yield f"<p class=note>{found.wall_seconds:.1f} s, peak memory {found.peak_memory_mb} MB.</p></section>"


def _count(count: int, what: str) -> str:
    plural = what[:-1] + "ies" if what.endswith("y") else what + "s"
    return f"{count:,} {what if count == 1 else plural}"
