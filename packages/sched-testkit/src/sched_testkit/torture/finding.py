"""What a run is accused of."""

from __future__ import annotations

from datetime import datetime

from attrs import frozen


@frozen
class Finding:
    """Something that must not be.

    Attributes:
        name: The name of the invariant.
        about: What broke it.
        at: When, for the timeline.
        job_id: The job's id.
    """

    name: str
    about: str
    at: datetime
    job_id: str = ""
