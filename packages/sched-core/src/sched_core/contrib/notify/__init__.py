"""Notifiers: people are told of failures, recoveries, and runs that did not begin.

A notifier is a job like any other. It reads the history in the order of commit, hands notices to
one sink, and stores how far it has come. So it needs no memory, delays no run, is retried, and
runs once for all processes of a store::

    router = JobRouter()
    Notifier("ops", Webhook("https://hooks.example.org/…")).declare(router)

A second receiver is a second notifier: one that is down neither holds up nor floods the others.
"""

from sched_core.contrib.notify.http import NotDelivered, Refused
from sched_core.contrib.notify.notice import DEFAULT_KINDS, Notice, NoticeKind
from sched_core.contrib.notify.notifier import Notifier
from sched_core.contrib.notify.sentry import SentryCheckIns
from sched_core.contrib.notify.sinks import Sink
from sched_core.contrib.notify.webhook import DeadMansPing, Webhook

__all__ = [
    "DEFAULT_KINDS",
    "DeadMansPing",
    "NotDelivered",
    "Notice",
    "NoticeKind",
    "Notifier",
    "Refused",
    "SentryCheckIns",
    "Sink",
    "Webhook",
]
