#!/usr/bin/env python3
"""Draws every Prometheus panel of the dashboards into PNG files, one for each section, for looking at them without Grafana.

usage: draw.py PROMETHEUS_URL OUTPUT_DIRECTORY [MINUTES [CORRELATION_ID]]     needs matplotlib
"""
import json
import math
import re
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLORS = {"green": "#56a64b", "yellow": "#e0b400", "red": "#e02f44", "blue": "#3274d9"}


def ask(base, path, **query):
    url = f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=120) as answer:
        return json.load(answer)["data"]["result"]


def chosen(query, minutes, correlation_id):
    values = {
        "__rate_interval": "1m", "__range": f"{minutes}m", "namespace": ".*", "task_type": ".*",
        "correlation_id": correlation_id,
    }
    return re.sub(r"\$\{?(\w+)\}?", lambda match: values.get(match[1], match[0]), query)


def text(value, unit):
    if value is None or math.isnan(value):
        return "no data"
    if unit == "dateTimeFromNow":
        return f"{time.time() - value / 1000:.0f} s ago"
    if unit == "percentunit":
        return f"{value * 100:.1f} %"
    if unit == "bytes":
        power = max(0, min(4, int(math.log(value, 1024)))) if value > 0 else 0
        return f"{value / 1024**power:.1f} {['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}"
    if unit == "ms" and value >= 1000:
        return f"{value / 1000:.2f} s"
    unit = {"percent": "%", "Bps": "B/s", "reqps": "requests/s"}.get(unit, unit)
    number = f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {unit.removeprefix('suffix: ').replace('short', '')}".strip()


def color(value, defaults):
    for mapping in defaults.get("mappings", []):
        known = mapping["options"].get(f"{value:.0f}")
        if known:
            return COLORS[known["color"]]
    reached = [step for step in defaults["thresholds"]["steps"] if step["value"] is None or value >= step["value"]]
    return COLORS.get(reached[-1]["color"], "black")


def legend(target, labels):
    return re.sub(r"\{\{(\w+)\}\}", lambda match: labels.get(match[1], ""), target["legendFormat"]) or "value"


def draw_over_time(axes, panel, results, defaults):
    unit, stacked = defaults["unit"], panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
    named = []
    for target, result in results:
        for series in result:
            points = [(float(at), float(value)) for at, value in series["values"]]
            named.append((legend(target, series["metric"]), points))
    if not named:
        axes.axis("off")
        axes.text(0.5, 0.5, defaults["noValue"], ha="center", transform=axes.transAxes)
        return
    if panel["type"] == "state-timeline":
        for row, (name, points) in enumerate(named):
            for (at, value), (until, _) in zip(points, points[1:]):
                axes.barh(row, until - at, left=at, color=color(value, defaults), height=0.8)
            words = {value: mapping["text"] for known in defaults["mappings"] for value, mapping in known["options"].items()}
            last = f"{points[-1][1]:.0f}"
            axes.text(points[0][0], row, f" {name}: {words.get(last, last)}", va="center", fontsize=6)
        axes.set_yticks([])
    elif stacked:
        times = sorted({at for _, points in named for at, _ in points})
        rows = [[dict(points).get(at, 0) for at in times] for _, points in named]
        axes.stackplot(times, rows, labels=[f"{name}   {text(points[-1][1], unit)}" for name, points in named], alpha=0.6)
    else:
        for name, points in named:
            axes.plot(*zip(*points), label=f"{name}   {text(points[-1][1], unit)}", linewidth=1, marker=".", markersize=2)
        axes.set_ylim(0, defaults.get("max") and max(defaults["max"] * 0.05, axes.get_ylim()[1]))
        for step in defaults["thresholds"]["steps"]:
            if step["value"] is not None and step["value"] < axes.get_ylim()[1]:
                axes.axhline(step["value"], color=COLORS[step["color"]], linestyle="--", linewidth=0.8)
    ticks = axes.get_xticks()
    axes.set_xticks(ticks, [time.strftime("%H:%M:%S", time.gmtime(at)) for at in ticks], fontsize=6)
    if panel["type"] != "state-timeline":
        axes.set_yticks(axes.get_yticks(), [text(value, unit) for value in axes.get_yticks()], fontsize=6)
        place = axes.get_position()
        axes.set_position((place.x0, place.y0, place.width * 0.68, place.height))
        axes.legend(fontsize=6, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False)
    axes.grid(alpha=0.3)


def draw_now(axes, panel, results, defaults):
    axes.axis("off")
    rows = [(target, series["metric"], float(series["value"][1])) for target, result in results for series in result]
    if defaults.get("decimals") == 0:
        rows = [(target, labels, float(round(value))) for target, labels, value in rows]
    unit = defaults["unit"]
    if panel["type"] == "piechart" and rows:
        labels = [f"{legend(target, labels)}: {text(value, unit)}" for target, labels, value in rows]
        axes.pie([value for _, _, value in rows], labels=labels, textprops={"fontsize": 6}, wedgeprops={"width": 0.5})
    elif panel["type"] == "table":
        # ids made later sort later: the newest first, as the panel does
        lines = sorted(("  ".join([*labels.values(), text(value, unit)]) for _, labels, value in rows), reverse=True)
        axes.text(0, 1, "\n".join(lines[:15]) or defaults["noValue"], fontsize=6, va="top", family="monospace")
    else:
        value = rows[0][2] if rows else math.nan
        axes.text(0.5, 0.5, text(value, unit) if rows else defaults["noValue"], fontsize=20, ha="center", va="center", color=color(value, defaults))


def sections(dashboard):
    """The title and the panels of each row."""
    found = []
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            found.append((panel["title"], []))
        else:
            found[-1][1].append(panel)
    return found


def draw(base, title, panels, minutes, correlation_id, output):
    top = min(panel["gridPos"]["y"] for panel in panels)
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) - top + 1
    figure = plt.figure(figsize=(18, rows * 0.36), dpi=90)
    figure.suptitle(title, y=1 - 0.1 / (rows * 0.36), fontsize=10)
    now = time.time()
    for panel in panels:
        place = panel["gridPos"]
        axes = figure.add_axes((place["x"] / 24 + 0.04, 1 - (place["y"] - top + place["h"] + 0.2) / rows,
                                place["w"] / 24 - 0.06, (place["h"] - 2.2) / rows))
        axes.set_title(panel["title"], fontsize=8, loc="left")
        if panel["datasource"]["uid"] != "prometheus":
            axes.axis("off")
            axes.text(0.5, 0.5, f"from {panel['datasource']['uid']}: not drawn", ha="center")
            continue
        results = []
        for target in panel["targets"]:
            query = chosen(target["expr"], minutes, correlation_id)
            over_time = {"start": now - 60 * minutes, "end": now, "step": 15}
            results.append((target, ask(base, "query", query=query) if target["instant"]
                            else ask(base, "query_range", query=query, **over_time)))
        defaults = panel["fieldConfig"]["defaults"]
        (draw_now if panel["targets"][0]["instant"] else draw_over_time)(axes, panel, results, defaults)
    figure.savefig(output)
    plt.close(figure)


def main():
    base, output = sys.argv[1], Path(sys.argv[2])
    minutes = int(sys.argv[3]) if len(sys.argv) > 3 else 15
    output.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) > 4:
        correlation_id = sys.argv[4]
    else:
        newest = ask(base, "query", query='group by (correlation_id) (tasker_tasks_completions_total{correlation_id=~".+-.+"})')
        correlation_id = max((series["metric"]["correlation_id"] for series in newest), default="none")
    for file in sorted((Path(__file__).parent / "dashboards").glob("*.json")):
        dashboard = json.loads(file.read_text())
        for number, (title, panels) in enumerate(sections(dashboard), 1):
            path = output / f"{file.stem}-{number}.png"
            draw(base, f"{dashboard['title']}: {title}", panels, minutes, correlation_id, path)
            print(path)


if __name__ == "__main__":
    main()
