"""Ours beside what users would pick instead, and beside what the stores can do by themselves.

    ./dev bench side_by_side                 everything: about half an hour
    ./dev bench side_by_side burst register  these workloads only
    ./dev bench side_by_side --quick         small numbers, one round: whether it works at all

Each figure is made by a process of its own, systems interleaved round by round; the table has the
median, and the spread between least and most, which is the machine's noise. Only ratios within one
run mean anything. Peers run in environments of their own below ``.dev/peers``. Results go to
``.dev/side_by_side/``: JSON, and one plot (PNG and SVG) for each workload.

Register: one-shots due in a year. Burst: one-shots all due now, until all have run and are recorded
as far as the system records. Steady: a thousand jobs every second. Idle: one-shots at random
moments. Growth: 2,000 due one-shots beside n others. Lateness: idle beside n stored recurring jobs.
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks._processes import environment as of_process  # noqa: E402 -- the path comes first

PEERS = ROOT / "benchmarks" / "_peers"
OWN = ROOT / ".dev"
OUT = OWN / "side_by_side"
TIMEOUT = 240

OURS = ("ours.py", None)
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "apscheduler3": ("apscheduler>=3.11,<4", "sqlalchemy>=2"),
    "apscheduler4": ("apscheduler==4.0.0a6", "sqlalchemy[asyncio]>=2", "aiosqlite", "sniffio"),
    "plots": ("matplotlib>=3.9",),
}
SYSTEMS: dict[str, tuple[str, str | None, str]] = {
    # name in the table: script, environment, store
    "memory": (*OURS, "memory"),
    "SQLite FULL": (*OURS, "sqlite-full"),
    "SQLite NORMAL": (*OURS, "sqlite-normal"),
    "APScheduler 3 memory": ("apscheduler3.py", "apscheduler3", "memory"),
    "APScheduler 3 SQLite FULL": ("apscheduler3.py", "apscheduler3", "sqlite-full"),
    "APScheduler 3 SQLite NORMAL": ("apscheduler3.py", "apscheduler3", "sqlite-normal"),
    "APScheduler 4 memory": ("apscheduler4.py", "apscheduler4", "memory"),
    "APScheduler 4 SQLite NORMAL": ("apscheduler4.py", "apscheduler4", "sqlite-normal"),
    "raw memory": ("raw.py", None, "memory"),
    "raw SQLite FULL": ("raw.py", None, "sqlite-full"),
    "raw SQLite NORMAL": ("raw.py", None, "sqlite-normal"),
}
PEER_OF = {
    "memory": ("APScheduler 3 memory", "APScheduler 4 memory"),
    "SQLite FULL": ("APScheduler 3 SQLite FULL",),
    "SQLite NORMAL": ("APScheduler 3 SQLite NORMAL", "APScheduler 4 SQLite NORMAL"),
}
WORKLOADS: dict[str, tuple[int, int, str]] = {
    # name: number of jobs, that of the slow ones (APScheduler 4 on SQLite), what counts
    "register": (5_000, 300, "rate"),
    "register-bulk": (10_000, 300, "rate"),
    "burst": (10_000, 500, "rate"),
    "steady": (1_000, 100, "p99_ms"),
    "idle": (100, 100, "p99_ms"),
    "growth": (100_000, 1_000, "rate"),
    "lateness": (10_000, 300, "p99_ms"),
}
RAW = {"register", "register-bulk", "burst"}


def python(environment: str | None) -> str:
    """Return the interpreter of an environment; it is made the first time."""
    if environment is None:
        return sys.executable
    folder = OWN / "peers" / environment
    wanted = "\n".join(ENVIRONMENTS[environment])
    inside, stamp = folder / "bin" / "python", folder / "wanted"
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        install = [str(inside), "-m", "pip", "install", "--quiet", *ENVIRONMENTS[environment]]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return str(inside)


def measure(workload: str, system: str, n: int) -> dict[str, Any] | None:
    """Return what one process measured, ``None`` where it did not end in time."""
    script, environment, store = SYSTEMS[system]
    with tempfile.TemporaryDirectory() as folder:
        command = [python(environment), str(PEERS / script), workload, store, folder, str(n)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=TIMEOUT,
                check=False,
                env=of_process(),
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode:
        raise RuntimeError(f"{system}, {workload}: {done.stderr.strip()[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(workload: str, rounds: int, divide: int) -> dict[str, dict[str, Any]]:
    """Measure all systems in turn, so many rounds; return medians, and least and most."""
    n, slow, _ = WORKLOADS[workload]
    samples: dict[str, list[dict[str, Any]]] = {}
    for _ in range(rounds):
        for system in SYSTEMS:
            if system.startswith("raw") and workload not in RAW:
                continue
            is_slow = system == "APScheduler 4 SQLite NORMAL"
            size = max((slow if is_slow else n) // divide, 50)
            found = measure(workload, system, size)
            if found is not None:
                samples.setdefault(system, []).append({**found, "n": size})
    return {system: summary(found) for system, found in samples.items()}


def summary(samples: list[dict[str, Any]]) -> dict[str, Any]:
    keys = [key for key in samples[0] if key != "n"]
    result: dict[str, Any] = {"n": samples[0]["n"], "rounds": len(samples)}
    for key in keys:
        values = [sample[key] for sample in samples]
        result[key] = statistics.median(values)
        result[f"{key}_least"], result[f"{key}_most"] = min(values), max(values)
    return result


def table(workload: str, found: dict[str, dict[str, Any]]) -> None:
    """Print the rows, ours with their ratio to the best peer on the same store."""
    counts = WORKLOADS[workload][2]
    print(f"\n{workload} ({'per second' if counts == 'rate' else 'late, ms'})")
    names = ("n", "median", "least", "most", "CPU µs", "MB")
    widths = (7, 11, 11, 11, 8, 6)
    print(f"  {'system':<30}", *(f"{n:>{w}}" for n, w in zip(names, widths, strict=True)))
    for system, row in found.items():
        ratio = ""
        peers = [found[peer][counts] for peer in PEER_OF.get(system, ()) if peer in found]
        if peers:
            best = max(peers) if counts == "rate" else min(peers)
            share = row[counts] / best if counts == "rate" else best / row[counts]
            ratio = f"  {share:.1f} times the best peer"
        print(
            f"  {system:<30} {row['n']:>7,} {row[counts]:>11,.1f} {row[counts + '_least']:>11,.1f} "
            f"{row[counts + '_most']:>11,.1f} {row['cpu_us']:>8,.1f} "
            f"{row.get('memory_mb', 0):>6,.0f}{ratio}"
        )
        if counts != "rate":
            parts = ", ".join(f"{k[:-3]} {row[k]:.2f}" for k in ("p50_ms", "p999_ms", "max_ms"))
            print(f"  {'':<30} {parts}")


PLOT = """
import json, sys
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plot
results, folder = json.load(open(sys.argv[1])), sys.argv[2]
for workload, found in results["workloads"].items():
    counts = results["counts"][workload]
    names = list(found)[::-1]
    values = [found[name][counts] for name in names]
    low = [found[n][counts] - found[n][counts + "_least"] for n in names]
    high = [found[n][counts + "_most"] - found[n][counts] for n in names]
    colors = ["#999999" if n.startswith("raw") else "#d08040" if n.startswith("AP") else "#3070b0"
              for n in names]
    figure, axes = plot.subplots(figsize=(8, 0.4 * len(names) + 1.2))
    axes.barh(names, values, xerr=[low, high], color=colors, log=True)
    axes.set_xlabel("per second" if counts == "rate" else "p99 lateness, ms")
    axes.set_title(workload)
    figure.tight_layout()
    figure.savefig(f"{folder}/{workload}.png", dpi=120)
    figure.savefig(f"{folder}/{workload}.svg")
"""


def main() -> None:
    """Measure, print, store, plot."""
    arguments = sys.argv[1:]
    quick = "--quick" in arguments
    wanted = [name for name in arguments if name in WORKLOADS] or list(WORKLOADS)
    rounds, divide = (1, 20) if quick else (3, 1)
    OUT.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(),
        "machine": f"{platform.platform()}, Python {platform.python_version()}",
        "counts": {name: WORKLOADS[name][2] for name in wanted},
        "workloads": {},
    }
    for workload in wanted:
        results["workloads"][workload] = found = run(workload, rounds, divide)
        table(workload, found)
        path = OUT / "results.json"
        path.write_text(json.dumps(results, indent=1))
    subprocess.run([python("plots"), "-c", PLOT, str(path), str(OUT)], check=True)
    print(f"\nresults and plots: {OUT.relative_to(ROOT)}/")


if __name__ == "__main__":
    main()
