"""A web service that runs its jobs itself: ``uvicorn fastapi_app:app``.

The scheduler lives as long as the application. Uvicorn has its own signal handlers, so the
scheduler leaves signals alone: when the application stops, so does it, and running handlers end
first.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import anyio
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from pydantic import AwareDatetime, BaseModel

from sched_core import (
    Interval,
    Job,
    JobAlreadyExists,
    JobEvent,
    JobNotFound,
    JobQuery,
    JobRouter,
    Once,
    Scheduler,
)
from sched_sql import SqlBackend

router = JobRouter()


@router.job("heartbeat", Interval(seconds=1))
async def heartbeat(event: JobEvent) -> None:
    pass


@router.route(metadata={"kind": "reminder"})
async def remind(event: JobEvent) -> None:
    print("remember:", event.metadata["text"], flush=True)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    backend = SqlBackend(os.environ.get("JOBS", "sqlite:///jobs.db"))
    async with (
        Scheduler(backend, handler=router) as scheduler,
        anyio.create_task_group() as tasks,
    ):
        app.state.scheduler = scheduler
        tasks.start_soon(lambda: scheduler.run_forever(signals=False))
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await scheduler.stop(timedelta(seconds=10))


def the_scheduler(request: Request) -> Scheduler:
    scheduler: Scheduler = request.app.state.scheduler
    return scheduler


Jobs = Annotated[Scheduler, Depends(the_scheduler)]

app = FastAPI(lifespan=lifespan)


class Reminder(BaseModel):
    text: str
    at: AwareDatetime


@app.put("/reminders/{name}", status_code=201)
async def add(name: str, reminder: Reminder, scheduler: Jobs) -> dict[str, Any]:
    metadata = {"kind": "reminder", "text": reminder.text}
    try:
        job = await scheduler.submit_job(f"reminder/{name}", Once(reminder.at), metadata=metadata)
    except JobAlreadyExists:
        raise HTTPException(409, "there is one of that name") from None
    return shown(job)


@app.get("/reminders")
async def reminders(scheduler: Jobs) -> list[dict[str, Any]]:
    query = JobQuery(metadata={"kind": "reminder"})
    return [shown(job) async for job in scheduler.list_jobs(query) if isinstance(job, Job)]


@app.delete("/reminders/{name}", status_code=204)
async def forget(name: str, scheduler: Jobs) -> None:
    try:
        await scheduler.remove_job(f"reminder/{name}")
    except JobNotFound:
        raise HTTPException(404, "there is none of that name") from None


@app.get("/health")
async def health(scheduler: Jobs, response: Response) -> dict[str, Any]:
    found = await scheduler.health()
    response.status_code = 200 if found.healthy else 503
    return {"healthy": found.healthy, "problems": found.problems, "running": found.running}


def shown(job: Job) -> dict[str, Any]:
    at = job.next_run or job.standing.last_scheduled_at or datetime.now(UTC)
    return {
        "name": job.id.removeprefix("reminder/"),
        "text": job.spec.metadata["text"],
        "at": at.isoformat(),
        "state": job.state.value,
    }
