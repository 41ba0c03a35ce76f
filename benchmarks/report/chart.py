"""chart.svg: messages per second of every contestant, a bar each, with the lowest and highest round. Pure."""

from __future__ import annotations

from html import escape

from benchmarks.report.figures_of_runs import Figure, Results
from benchmarks.runner.contestants import CONTESTANTS, Contestant
from benchmarks.runner.plan import MEMORY

WIDTH = 860
LEFT = 270
RIGHT = 130
BAR = 20
GAP = 8
TOP = 52
OURS = "#1d6fb8"
THEIRS = "#9aa5b1"
TITLE = "Messages per second, no-op tasks, one worker"
SUBTITLE = "10 ms delay for each call to SQS; the median of the rounds, with a line from the lowest to the highest"


def svg(results: Results) -> str:
    """Return the chart of the no-op runs: at 10 ms, but Celery on Redis, which has no proxy before it."""
    bars = [bar for bar in (_bar(results, contestant) for contestant in CONTESTANTS) if bar]
    bars.sort(key=lambda bar: -bar[1].median)
    most = max((figure.highest for _, figure, _ in bars), default=1.0)
    height = TOP + len(bars) * (BAR + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        '<g font-family="system-ui, sans-serif" font-size="13" fill="#1f2933">',
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="20" font-size="15" font-weight="600">{TITLE}</text>',
        f'<text x="12" y="38" fill="#52606d">{SUBTITLE}</text>',
    ]
    for place, (title, figure, ours) in enumerate(bars):
        parts += _drawn(TOP + place * (BAR + GAP), title, figure, ours, (WIDTH - LEFT - RIGHT) / most)
    return "\n".join([*parts, "</g>", "</svg>"]) + "\n"


def _bar(results: Results, contestant: Contestant) -> tuple[str, Figure, bool] | None:
    on_redis = contestant.broker == "redis"
    figure = results.rate(contestant.name, "noop", 0 if on_redis else 10, MEMORY)
    if figure is None:
        return None
    return f"{contestant.title}{' (0 ms)' if on_redis else ''}", figure, contestant.name.startswith("ours")


def _drawn(top: float, title: str, figure: Figure, ours: bool, scale: float) -> list[str]:
    middle = top + BAR / 2
    color = OURS if ours else THEIRS
    end = LEFT + figure.median * scale
    low, high = LEFT + figure.lowest * scale, LEFT + figure.highest * scale
    return [
        f'<text x="{LEFT - 8}" y="{middle + 4:g}" text-anchor="end">{escape(title)}</text>',
        f'<rect x="{LEFT}" y="{top:g}" width="{max(1.0, end - LEFT):.1f}" height="{BAR}" fill="{color}"/>',
        f'<path d="M{low:.1f} {middle:g}H{high:.1f}" stroke="#1f2933" stroke-width="1.5"/>',
        f'<text x="{max(end, high) + 6:.1f}" y="{middle + 4:g}">{figure.median:,.0f}</text>',
    ]
