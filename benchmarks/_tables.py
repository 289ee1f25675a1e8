"""Tables of the measurements: medians, ratios, noise, and two runs next to each other."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks._processes import Figures
from benchmarks._systems import SYSTEMS, WORKLOADS, Workload, peers_of

Rows = dict[str, Figures]

AHEAD = 3.0
"""How many times faster than peers that keep their jobs, where runs are counted."""
LEVEL = 1.0


def aim(name: str, ours: str, peer: str) -> float:
    """Return how many times a peer's figure ours is meant to be."""
    runs = WORKLOADS[name].act in {"burst", "steady"}
    own_ground = peer == "pgqueuer" or ours == "memory"  # a queue; or what records nothing
    return AHEAD if runs and not own_ground else LEVEL


def summary(samples: Sequence[Figures]) -> Figures:
    """Return the medians of the samples, and their least and most."""
    result: Figures = {"rounds": len(samples)}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        result[key] = statistics.median(values)
        result[f"{key}_least"], result[f"{key}_most"] = min(values), max(values)
    return result


def times(workload: Workload, ours: float, other: float) -> float:
    """Return how many times better ours is."""
    return ours / other if workload.more_is_better else other / ours


def ratios(name: str, rows: Rows) -> Iterator[tuple[str, str, float]]:
    """Yield ours, a peer on the same store, and how many times better ours is."""
    workload = WORKLOADS[name]
    for system in SYSTEMS:
        for peer in peers_of(system):
            if system.name in rows and peer in rows:
                mine, its = rows[system.name][workload.counts], rows[peer][workload.counts]
                yield system.name, peer, times(workload, mine, its)


def lines(name: str, rows: Rows) -> Iterator[str]:
    """Yield the lines of a table."""
    workload = WORKLOADS[name]
    counts = workload.counts
    yield ""
    yield f"{name}: {workload.unit}"
    yield (
        f"  {'':<28}{'jobs':>8}{'median':>13}{'least':>13}{'most':>13}{'CPU µs':>9}{'server':>8}"
        f"{'MB':>5}"
    )
    ratios = {ours: f"{times:.1f} x {peer}" for ours, peer, times in _worst_first(name, rows)}
    for system, row in rows.items():
        yield (
            f"  {system:<28}{row['n']:>8,.0f}{row[counts]:>13,.1f}{row[counts + '_least']:>13,.1f}"
            f"{row[counts + '_most']:>13,.1f}{row.get('cpu_us', 0):>9,.0f}"
            f"{row.get('server_us', 0):>8,.0f}{row['memory_mb']:>5,.0f}  {ratios.get(system, '')}"
        )
        if counts == "p99_ms":
            shares = "  ".join(f"{key[:-3]} {row[key]:,.2f}" for key in ("p50_ms", "p999_ms"))
            yield f"  {'':<28}{shares}  max {row['max_ms']:,.2f}  runs {row['runs']:,.0f}"
        if "doubled" in row:
            yield f"  {'':<28}doubled {row['doubled']:,.0f}  lost {row['lost']:,.0f}"


def _worst_first(name: str, rows: Rows) -> list[tuple[str, str, float]]:
    """Return the ratios, for each of ours the smallest last."""
    return sorted(ratios(name, rows), key=lambda each: -each[2])


def behind(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is not as far ahead of a peer as is meant; each such row needs its reason."""
    for name, found in results["workloads"].items():
        for ours, peer, ratio in ratios(name, found["rows"]):
            meant = aim(name, ours, peer)
            if ratio < meant:
                yield f"{name}: {ours} is {ratio:.2f} times {peer}; {meant:g} is meant"


def noise(results: Mapping[str, Any]) -> float | None:
    """Return how far apart least and most are, as a share of the median, in the median row.

    After a single round that is unknown.
    """
    shares = [
        (row[f"{found['counts']}_most"] - row[f"{found['counts']}_least"]) / row[found["counts"]]
        for found in results["workloads"].values()
        for row in found["rows"].values()
        if row["rounds"] > 1 and row[found["counts"]]
    ]
    return statistics.median(shares) if shares else None


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each figure in both results: how many times better the second is."""
    yield f"{'':<18}{'':<28}{'before':>13}{'after':>13}{'times':>8}"
    for name, earlier in before["workloads"].items():
        later = after["workloads"].get(name, {"rows": {}})
        counts = earlier["counts"]
        for system, row in earlier["rows"].items():
            if system not in later["rows"]:
                continue
            other = later["rows"][system]
            ratio = times(WORKLOADS[name], other[counts], row[counts])
            apart = (
                other[f"{counts}_least"] > row[f"{counts}_most"]
                or other[f"{counts}_most"] < row[f"{counts}_least"]
            )
            verdict = "" if apart else "  within the noise"
            if other["n"] != row["n"]:
                verdict = "  of other numbers of jobs"
            yield (
                f"{name:<18}{system:<28}{row[counts]:>13,.1f}{other[counts]:>13,.1f}"
                f"{ratio:>8.2f}{verdict}"
            )
