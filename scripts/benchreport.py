"""How scripts/bench shows what it measured: text, Markdown, and a picture of the ratios."""
import math
from dataclasses import dataclass
from html import escape

import benchscale

COLUMNS = ("native", "no mount", "kernel", "ptrace", "notify", "proot", "fakeroot")
TITLES = {"native": "native", "no mount": "umvu, no mount", "kernel": "kernel FUSE", "ptrace": "umvu ptrace",
          "notify": "umvu notify", "proot": "proot", "fakeroot": "fakeroot"}


@dataclass
class Result:
    row: object
    medians: dict
    spread: dict
    failures: dict

    def ratio(self, place, base):
        if place == base or base not in self.medians or place not in self.medians or self.row.unit != "time":
            return None
        if self.grows():
            return None
        return self.medians[place] / self.medians[base]

    def grows(self):
        return any(isinstance(median, benchscale.Growth) for median in self.medians.values())

    def growth(self, place):
        return self.medians[place].then / self.medians[place].before

    def base(self):
        """What the row is compared with first."""
        return self.row.target[0] if self.row.target else "kernel" if "kernel" in self.row.places else "native"

    def noisy(self, place):
        median, spread = self.medians[place], self.spread[place]
        pairs = zip(median, spread) if self.grows() else [(median, spread)]
        return any(spread > 0.25 * median for median, spread in pairs)

    def met(self, place):
        """Does this place reach the target? None: it cannot be told."""
        if self.row.growth and place in self.medians:
            return self.growth(place) <= self.row.growth
        if not self.row.target or place not in self.medians:
            return None
        base, factor, more = self.row.target
        return None if base not in self.medians else self.medians[place] <= self.medians[base] * factor + more


def amount(value, unit):
    if unit == "bytes":
        return f"{value / (1 << 20):.1f} MiB" if value >= 1 << 19 else f"{value / (1 << 10):.1f} KiB"
    for name, scale in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if value >= scale:
            return f"{three(value / scale)} {name}"
    return f"{value:.0f} ns"


def three(value):
    """Three digits, no more."""
    return f"{value:.{max(0, 2 - int(math.floor(math.log10(value))))}f}" if value > 0 else "0"


def times(ratio):
    return f"{three(ratio)}×"


def target_text(result):
    if result.row.growth:
        return f"grows ≤ {result.row.growth:g} ×"
    if not result.row.target:
        return ""
    base, factor, more = result.row.target
    text = "≤ " + (f"{factor:g} × " if factor != 1 or not more else "") + TITLES[base]
    return text + (f" + {amount(more, 'time')}" if more else "")


def cell(result, place):
    if place not in result.row.places:
        return ""
    if place not in result.medians:
        return "–"
    median, ratios = result.medians[place], []
    if result.grows():
        text = " → ".join(amount(value, result.row.unit) for value in median)
        ratios.append(times(result.growth(place)))
    else:
        text = amount(median, result.row.unit)
    text = ("~" if result.noisy(place) else "") + text
    for base, name in (("kernel", "kernel"), ("native", "native")) if place != "native" else ():
        # Where the kernel's FUSE is there to be compared with, it is named; else native is meant.
        if (ratio := result.ratio(place, base)) is not None:
            ratios.append(times(ratio) + (f" {name}" if "kernel" in result.row.places else ""))
    text += f" ({', '.join(ratios)})" if ratios else ""
    met = result.met(place) if place in ("ptrace", "notify", "no mount") else None
    return text + ("" if met is None else " ✓" if met else " ✗")


def tables(results):
    """(title, columns, results)"""
    for title in dict.fromkeys(result.row.table for result in results):
        part = [result for result in results if result.row.table == title]
        yield title, [name for name in COLUMNS if any(name in result.row.places for result in part)], part


def lines(columns, part):
    targets = [target_text(result) for result in part]
    aimed = any(targets)
    yield ["", *(TITLES[name] for name in columns), *(["target"] if aimed else [])]
    for result, target in zip(part, targets):
        yield [result.row.title, *(cell(result, name) for name in columns), *([target] if aimed else [])]


def reasons(results):
    """Why there is no number: each reason once, with its rows."""
    found = {}
    for result in results:
        for place, why in result.failures.items():
            found.setdefault((TITLES[place], why), []).append(result.row.title)
    for (place, why), titles in found.items():
        which = "" if len(titles) > 3 else f" ({'; '.join(titles)})"
        yield f"{place}: {why}{which}"


def legend():
    return (
        "Medians. In brackets the ratio to native or to kernel FUSE. ✓ and ✗: target met or missed. "
        "~: the rounds differed by more than a quarter either way. "
        "→: what it costs before there is much of something, and then; in brackets by how much it has grown."
    )


def text(facts, results):
    out = [f"{name}: {value}" for name, value in facts.items()]
    out += ["", legend()]
    for title, columns, part in tables(results):
        table = list(lines(columns, part))
        widths = [max(len(line[at]) for line in table) for at in range(len(table[0]))]
        out += ["", title]
        out += ["  ".join(word.ljust(width) for word, width in zip(line, widths)).rstrip() for line in table]
    out += ["", *(f"– {reason}" for reason in reasons(results))]
    return "\n".join(out).rstrip()


def markdown(facts, results):
    out = ["; ".join(f"{name}: {value}" for name, value in facts.items()) + ".", "", legend()]
    for title, columns, part in tables(results):
        head, *body = lines(columns, part)
        out += ["", f"**{title}**", "", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        out += ["| " + " | ".join(word.replace("|", "\\|") for word in line) + " |" for line in body]
    why = list(reasons(results))
    out += ["", *(f"– {reason}  " for reason in why)] if why else []
    return "\n".join(out) + "\n"


LEFT, WIDTH, BAR, GAP = 390, 560, 9, 8
COLOURS = {"no mount": "#7a9e7e", "ptrace": "#c58b4b", "notify": "#3b6ea5", "proot": "#b0b0b0"}


def bars_of(result):
    """(place, ratio): to what the row is compared with, or then to before."""
    for place in COLOURS:
        if place in result.medians:
            ratio = result.growth(place) if result.grows() else result.ratio(place, result.base())
            if ratio:
                yield place, ratio


def svg(facts, results):
    """Bars from 1× to the left (faster) or to the right (slower), on a logarithmic scale; a tick at each target."""
    shown = []
    for result in results:
        if bars := list(bars_of(result)):
            shown.append((result, bars))
    if not shown:
        return '<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"/>\n'
    ratios = [ratio for _, bars in shown for _, ratio in bars]
    low = math.floor(min(-0.3, *(math.log10(ratio) for ratio in ratios)) * 2) / 2
    high = math.ceil(max(0.5, *(math.log10(ratio) for ratio in ratios)) * 2) / 2

    def x(ratio):
        return LEFT + (math.log10(ratio) - low) / (high - low) * WIDTH

    out, y = [], 64
    for result, bars in shown:
        middle = y + len(bars) * (BAR + 1) / 2 + 4
        label = result.row.title + (" (growth)" if result.grows() else f" ÷ {TITLES[result.base()]}")
        out.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        top = y
        for place, ratio in bars:
            start, end = sorted((x(1), x(ratio)))
            out.append(f'<rect x="{start:.1f}" y="{y}" width="{max(end - start, 1):.1f}" height="{BAR}" '
                       f'fill="{COLOURS[place]}"><title>{TITLES[place]}: {times(ratio)}</title></rect>')
            out.append(f'<text x="{max(end, x(1)) + 4:.1f}" y="{y + BAR - 1}" class="n">{times(ratio)}</text>')
            y += BAR + 1
        if target := result.row.growth or result.row.target and not result.row.target[2] and result.row.target[1]:
            at = x(min(max(target, 10**low), 10**high))
            out.append(f'<path d="M{at:.1f} {top - 1}V{y}" stroke="#c33" stroke-width="2"/>')
        y += GAP
    grid = []
    for power in range(math.ceil(low), math.floor(high) + 1):
        at = x(10**power)
        grid.append(f'<path d="M{at:.1f} 50V{y}" stroke="{"#555" if power == 0 else "#ddd"}"/>')
        grid.append(f'<text x="{at:.1f}" y="46" text-anchor="middle">{10.0**power:g}×</text>')
    key, at = [], LEFT
    for place in COLOURS:
        if any(place in dict(bars) for _, bars in shown):
            key.append(f'<rect x="{at}" y="10" width="10" height="10" fill="{COLOURS[place]}"/>')
            key.append(f'<text x="{at + 14}" y="19">{TITLES[place]}</text>')
            at += 120
    key.append(f'<path d="M{at} 10v10" stroke="#c33" stroke-width="2"/><text x="{at + 6}" y="19">target</text>')
    about = f"{facts['kernel']}, {facts['cores']}, load {facts['load']}"
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" height="{y + 24}" '
        'font-family="sans-serif" font-size="11">',
        "<style>.n{font-size:8px;fill:#444}</style>",
        '<rect width="100%" height="100%" fill="#fff"/>',
        *key, *grid, *out,
        f'<text x="8" y="{y + 14}" class="n">{escape(about)}</text>',
        "</svg>",
    ]) + "\n"
