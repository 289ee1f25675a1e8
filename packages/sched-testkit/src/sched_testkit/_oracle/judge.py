"""The judge of occurrences: what was commanded, called and written, without a store and claims."""

from __future__ import annotations

from datetime import timedelta

from attrs import define

from sched_testkit._oracle.accounting import Accounting
from sched_testkit._oracle.history import History
from sched_testkit._oracle.known import Known
from sched_testkit._oracle.observed import Observed
from sched_testkit._oracle.starts import Starts


@define
class Judge:
    """Judges one history of occurrences.

    A history gives it every command, call of the handler and execution in the order in which they
    happened. It calls nothing of the rules that it judges.
    """

    known: Known
    observed: Observed
    starts: Starts
    history: History
    accounting: Accounting

    def copy(self) -> Judge:
        """Return an independent copy."""
        observed = self.observed.copy()
        known = self.known.copy(observed)
        return Judge(
            known,
            observed,
            Starts(known, observed),
            self.history.copy(known, observed),
            Accounting(known, observed, self.accounting.jitter),
        )


def new_judge(*, grace: timedelta | None = None, jitter: timedelta = timedelta(minutes=5)) -> Judge:
    """Return a judge that knows nothing yet.

    Args:
        grace: The grace of ``Drop`` where all policies have the same one.
        jitter: The longest jitter that any policy of the history has.
    """
    observed = Observed()
    known = Known(observed)
    return Judge(
        known,
        observed,
        Starts(known, observed),
        History(known, observed, grace),
        Accounting(known, observed, jitter),
    )
