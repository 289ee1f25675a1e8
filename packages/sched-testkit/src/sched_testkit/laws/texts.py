"""Texts that stores, drivers and templates take for something else than texts."""

from __future__ import annotations

from attrs import evolve

from sched_core import Job, Pause, Status
from sched_testkit._suite.bench import Bench
from sched_testkit.laws.law import law
from sched_testkit.laws.revisions import unrun

ODD = (
    *("a\nb", "a\r\nb", "\n", "\ta", "\\n", "\\\\", "\\", "\\u0041"),
    *("%s %% %d", "%%%%", "{x} {{y}} ${z}"),
    *("$1 :v ? @p", "it's", "''", '"q"', "`b`", "--c", "/*c*/", "<b>&amp;", "\u2028", "\ufeffa"),
    *("null", "None", "nil", "true", "007", "1e5", "-0", "[]", "{}", "", " ", " a ", "\x7f"),
    *("\x1b[0m", "e\u0301", "é", "\U0001f600", "a" * 300),
)


@law
async def texts_mean_nothing(bench: Bench) -> None:
    """Names, groups, metadata and reasons come back as they were given, whatever is in them."""
    backend, now = await bench.open(), bench.clock.now()
    jobs = []
    for number, text in enumerate(ODD):
        word = text if text.isprintable() and 0 < len(text) < 100 else f"{number}"
        job = bench.job(f"{number:03}", name=word, group=word, metadata={text: text}, due=None)
        pause = Pause(now, 1, None, text)
        jobs.append(evolve(job, standing=evolve(job.standing, pause=pause)))
    limit = backend.capabilities.bulk_limit or len(jobs)
    for start in range(0, len(jobs), limit):
        await bench.added(backend, *jobs[start : start + limit])
    (job,) = await bench.added(backend, bench.job("all", metadata={each: each for each in ODD}))
    stored = await bench.jobs(backend, limit=50)
    found = {each.id: evolve(each, revision=0) for each in stored if isinstance(each, Job)}
    for given, text in zip(jobs, ODD, strict=True):
        assert found[given.id] == given, f"{text!r} came back as something else"
    assert job in stored and dict(job.spec.metadata) == {each: each for each in ODD}
    executions = [
        unrun(bench, job, number, status=Status.SKIPPED, reason=text)
        for number, text in enumerate(ODD, 10)
    ]
    await backend.replace(job, executions)
    listed = await bench.records(backend, 50)
    assert listed == executions[::-1], "a reason came back as something else"
