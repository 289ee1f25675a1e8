# mypy: ignore-errors
# Run in an environment of its own, where the types of this one mean nothing.
"""One bar chart per workload, as PNG and SVG: ``plot.py RESULTS FOLDER``."""

import json
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plot


def color(row):
    return "#3070b0" if row["kind"] == "ours" else "#999999" if row["kind"] == "raw" else "#d08040"


def main():
    with open(sys.argv[1]) as file:
        results = json.load(file)
    for name, table in results["workloads"].items():
        rows, counts = table["rows"], table["counts"]
        names = list(rows)[::-1]
        middle = [rows[n][counts] for n in names]
        low = [max(rows[n][counts] - rows[n][counts + "_least"], 0) for n in names]
        high = [max(rows[n][counts + "_most"] - rows[n][counts], 0) for n in names]
        figure, axes = plot.subplots(figsize=(8, 0.35 * len(names) + 1.2))
        colors = [color(rows[n]) for n in names]
        axes.barh(names, middle, xerr=[low, high], color=colors, log=True)
        axes.set_xlabel(table["unit"])
        axes.set_title(name)
        figure.tight_layout()
        figure.savefig(f"{sys.argv[2]}/{name}.png", dpi=120)
        figure.savefig(f"{sys.argv[2]}/{name}.svg")
        plot.close(figure)


main()
