"""What a run of the suite found, per backend: what was seen, apart from what is only declared."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from attrs import Factory, define

SUITE = f"sched-testkit {version('sched-testkit')}"


def verdict(backend: str, minutes: float, seed: int, findings: int) -> str:
    """Return what the torture writes for the certificate; :func:`read_verdicts` reads it."""
    count = f"{findings or 'no'} finding{'s' if findings > 1 else ''}"
    told = f"{minutes:g} min, seed {seed}, {count} ({SUITE})"
    return json.dumps({"name": backend, "verdict": told}) + "\n"


def read_verdicts(texts: Iterable[str]) -> dict[str, str]:
    """Return what the torture said about each backend."""
    found = [json.loads(text) for text in texts]
    return {each["name"]: each["verdict"] for each in found}


Outcomes = dict[str, str]
"""Law, with the variant in brackets, to what there is to say."""

PROMISES = ("durable", "shared", "ordered", "transactions", "notified")
"""Capabilities that say yes or no: a yes must be seen."""
UNSEEN = "NOT examined"
AT_ONCE = "one instance, two instances"


@define
class Findings:
    """About one backend."""

    capabilities: dict[str, Any] = Factory(dict)
    passed: Outcomes = Factory(dict)
    skipped: Outcomes = Factory(dict)
    failed: Outcomes = Factory(dict)
    loops: dict[str, str] = Factory(dict)
    """Each event loop, and why it was not examined; empty where it was."""
    forks: bool = False
    """Whether another process can take part."""
    seen: dict[str, list[tuple[str, str]]] = Factory(dict)
    """Promise to the outcome of each law about it, with the reason of a skipped one."""
    torture: str = "not run"

    def counts(self) -> str:
        """Return how many laws ended how."""
        return f"{len(self.passed)} passed, {len(self.skipped)} skipped, {len(self.failed)} failed"

    def unseen(self) -> list[str]:
        """Return what is declared and was not examined, in sentences."""
        found = [
            f"{promise}: declared, {UNSEEN}: {self._why(promise)}"
            for promise in PROMISES
            if self.capabilities.get(promise) and not self._is_seen(promise)
        ]
        found += [
            f"{loop}: declared, {why}"
            for loop, why in self.loops.items()
            if why and loop in self.capabilities.get("loops", ())
        ]
        if not self._is_seen("overlap"):
            found.append(f"overlap: {UNSEEN}: {self._why('overlap')}")
        return found

    def examined(self) -> list[str]:
        """Return what was examined, one line for each."""
        found = [f"{name}: {self._verdict(name)}" for name in PROMISES if self._is_seen(name)]
        if self._is_seen("overlap"):
            shares = self.forks and (self.capabilities["shared"] or self.capabilities["durable"])
            where = f"{AT_ONCE}, two processes" if shares else AT_ONCE
            found.append(f"overlap: {self._verdict('overlap')} ({where})")
        loops = [loop if not why else f"{loop}: no" for loop, why in self.loops.items()]
        if loops:
            found.append(f"loops: {', '.join(loops)}")
        return [*found, f"torture: {self.torture}"]

    def _is_seen(self, promise: str) -> bool:
        return any(outcome != "skipped" for outcome, _ in self.seen.get(promise, ()))

    def _verdict(self, promise: str) -> str:
        outcomes = {outcome for outcome, _ in self.seen[promise]}
        return "FAILED" if "failed" in outcomes else "examined"

    def _why(self, promise: str) -> str:
        reasons = [why for _, why in self.seen.get(promise, ())]
        if not reasons:
            return "no law of this run is about it"
        return reasons[0].removeprefix(f"{UNSEEN}: ")


class Certificate:
    """Per backend: what was seen, the laws passed, skipped with the reason, and failed."""

    def __init__(self, tortured: dict[str, str] | None = None) -> None:
        self.backends: dict[str, Findings] = {}
        self._tortured = tortured or {}

    def note(self, report: Any) -> None:
        """Take a pytest report into account."""
        about = getattr(report, "sched_law", None)
        if about is None:
            return
        backend = about["backend"]
        found = self.backends.setdefault(backend, Findings())
        found.torture = self._tortured.get(backend, found.torture)
        found.capabilities = about["capabilities"] or found.capabilities
        found.loops = about["loops"] or found.loops
        found.forks = about["forks"] or found.forks
        variant = report.nodeid.rpartition("::")[2].partition("[")[2].rstrip("]")
        name = f"{about['law']}[{variant}]" if variant else about["law"]
        reason = ""
        if report.outcome == "skipped":
            told = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            reason = told.removeprefix("Skipped: ")
            if reason and reason == found.loops.get(variant):
                return  # said once, for the loop
            found.skipped[name] = reason
        elif report.outcome == "failed":
            found.failed[name] = _why(report)
            found.passed.pop(name, None)
        elif report.when == "call" and name not in found.failed:
            found.passed[name] = ""
        else:
            return
        for promise in about["examines"]:
            found.seen.setdefault(promise, []).append((report.outcome, reason))

    def unseen(self) -> list[str]:
        """Return what is declared and was not examined, of all backends."""
        return [
            f"{backend}: {line}"
            for backend, found in sorted(self.backends.items())
            for line in found.unseen()
        ]

    def text(self) -> str:
        """Return the summary for the terminal."""
        lines = []
        for backend, found in sorted(self.backends.items()):
            lines.append(f"{backend}: {found.counts()} ({SUITE})")
            lines += [f"  {line}" for line in (*found.unseen(), *found.examined())]
            lines.append(f"  declares {_declaration(found)}")
            for word, outcomes in (("skipped", found.skipped), ("FAILED ", found.failed)):
                lines += [f"  {word} {name}: {why}" for name, why in _gathered(outcomes)]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the certificate as JSON values."""
        return {
            backend: {
                "suite": SUITE,
                "not_examined": found.unseen(),
                "examined": found.examined(),
                "capabilities": found.capabilities,
                "loops": found.loops,
                "torture": found.torture,
                "passed": sorted(found.passed),
                "skipped": dict(sorted(found.skipped.items())),
                "failed": dict(sorted(found.failed.items())),
            }
            for backend, found in sorted(self.backends.items())
        }

    def markdown(self) -> str:
        """Return the certificate as a Markdown page."""
        parts = ["# Conformance certificate", "", f"By {SUITE}.", ""]
        for backend, found in sorted(self.backends.items()):
            parts += [f"## {backend}", "", found.counts(), ""]
            parts += [f"- **{line}**" for line in found.unseen()]
            parts += [f"- {line}" for line in found.examined()]
            parts += ["", "| capability | declared |", "|---|---|"]
            parts += [f"| {name} | {_shown(value)} |" for name, value in found.capabilities.items()]
            parts += [""]
            parts += [f"- **failed** `{name}`: {why}" for name, why in _gathered(found.failed)]
            parts += [f"- skipped `{name}`: {why}" for name, why in _gathered(found.skipped)]
            parts += [f"- passed `{name}`" for name, _ in _gathered(found.passed)]
            parts += [""]
        return "\n".join(parts)


def _why(report: Any) -> str:
    """Return what broke in one line: what comes after the law, not the traceback around it."""
    crash = getattr(getattr(report, "longrepr", None), "reprcrash", None)
    text = getattr(crash, "message", None) or str(report.longreprtext).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    told = lines[1:] if len(lines) > 1 and " breaks the law " in lines[0] else lines
    return " ".join(told[:1])[:300]


def _gathered(outcomes: Outcomes) -> list[tuple[str, str]]:
    """Return one entry for the variants of a law that have the same to say."""
    variants: dict[tuple[str, str], list[str]] = {}
    for name, why in outcomes.items():
        law, _, variant = name.partition("[")
        variants.setdefault((law, why), []).append(variant.rstrip("]"))
    return [
        (f"{law}[{', '.join(sorted(found))}]" if any(found) else law, why)
        for (law, why), found in variants.items()
    ]


def _declaration(found: Findings) -> str:
    if not found.capabilities:
        return "nothing that could be read: see what failed"
    flags = [name for name, value in found.capabilities.items() if value is True]
    flags += [f"not {name}" for name, value in found.capabilities.items() if value is False]
    others = [
        f"{name.replace('_', ' ')} {_shown(value)}"
        for name, value in found.capabilities.items()
        if not isinstance(value, bool)
    ]
    return ", ".join(flags + others)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return "+".join(value)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
