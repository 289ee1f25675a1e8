"""What a run of the exam found, per backend."""

from __future__ import annotations

from typing import Any

from attrs import Factory, define

from sched_core import Capabilities

Outcomes = dict[str, str]
"""Law, with the variant in brackets, to what there is to say."""


@define
class Findings:
    """About one backend."""

    capabilities: dict[str, Any] = Factory(dict)
    passed: Outcomes = Factory(dict)
    skipped: Outcomes = Factory(dict)
    failed: Outcomes = Factory(dict)

    def counts(self) -> str:
        """Return how many laws ended how."""
        return f"{len(self.passed)} passed, {len(self.skipped)} skipped, {len(self.failed)} failed"


class Certificate:
    """Per backend: what it declares, and the laws passed, skipped with the reason, and failed."""

    def __init__(self) -> None:
        self.backends: dict[str, Findings] = {}

    def note(self, report: Any) -> None:
        """Take a pytest report into account."""
        about = getattr(report, "sched_law", None)
        if about is None:
            return
        found = self.backends.setdefault(about["backend"], Findings())
        found.capabilities = about["capabilities"] or found.capabilities
        name = about["law"]
        variant = report.nodeid.rpartition("::")[2].partition("[")[2].rstrip("]")
        name = f"{name}[{variant}]" if variant else name
        if report.outcome == "skipped":
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            found.skipped[name] = reason.removeprefix("Skipped: ")
        elif report.outcome == "failed":
            found.failed[name] = _why(report)
            found.passed.pop(name, None)
        elif report.when == "call" and name not in found.failed:
            found.passed[name] = ""

    def text(self) -> str:
        """Return the summary for the terminal."""
        lines = []
        for backend, found in sorted(self.backends.items()):
            lines.append(f"{backend}: {found.counts()}")
            lines.append(f"  declares {_declaration(found)}")
            for word, outcomes in (("skipped", found.skipped), ("FAILED ", found.failed)):
                lines += [f"  {word} {name}: {why}" for name, why in _gathered(outcomes)]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """Return the certificate as JSON values."""
        return {
            backend: {
                "capabilities": found.capabilities,
                "passed": sorted(found.passed),
                "skipped": dict(sorted(found.skipped.items())),
                "failed": dict(sorted(found.failed.items())),
            }
            for backend, found in sorted(self.backends.items())
        }

    def markdown(self) -> str:
        """Return the certificate as a Markdown page."""
        parts = ["# Conformance certificate", ""]
        for backend, found in sorted(self.backends.items()):
            parts += [f"## {backend}", "", found.counts(), "", "| capability | declared |"]
            parts += ["|---|---|"]
            parts += [f"| {name} | {_shown(value)} |" for name, value in found.capabilities.items()]
            parts += [""]
            parts += [f"- **failed** `{name}`: {why}" for name, why in _gathered(found.failed)]
            parts += [f"- skipped `{name}`: {why}" for name, why in _gathered(found.skipped)]
            parts += [f"- passed `{name}`" for name, _ in _gathered(found.passed)]
            parts += [""]
        return "\n".join(parts)


def capabilities_as_json(capabilities: Capabilities) -> dict[str, Any]:
    """Return what a backend declares as JSON values: they cross processes under pytest-xdist."""
    return {
        "durable": capabilities.durable,
        "shared": capabilities.shared,
        "ordered": capabilities.ordered,
        "transactions": capabilities.transactions,
        "bulk_limit": capabilities.bulk_limit,
        "time": capabilities.time,
        "granularity_seconds": capabilities.granularity.total_seconds(),
        "lease_seconds": capabilities.lease.total_seconds(),
        "loops": sorted(capabilities.loops),
    }


def _why(report: Any) -> str:
    """Return what broke: the error in one line, not the traceback around it."""
    crash = getattr(getattr(report, "longrepr", None), "reprcrash", None)
    text = getattr(crash, "message", None) or str(report.longreprtext).strip()
    return " ".join(text.splitlines()[:1])[:300]


def _gathered(outcomes: Outcomes) -> list[tuple[str, str]]:
    """Return one entry for the variants of a law that have the same to say."""
    variants: dict[tuple[str, str], list[str]] = {}
    for name, why in outcomes.items():
        law, _, variant = name.partition("[")
        variants.setdefault((law, why), []).append(variant.rstrip("]"))
    return sorted(
        (f"{law}[{', '.join(sorted(found))}]" if any(found) else law, why)
        for (law, why), found in variants.items()
    )


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
