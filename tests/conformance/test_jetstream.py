import pytest
from tests.conformance.harnesses.jetstream import JetStreamHarness

from sched_testkit import conformance
from sched_testkit.conformance import DEEP

# While the connection is cut, nats-py leaves the sockets of failed attempts to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Transport.__del__|StreamWriter.__del__|socket.socket fd)"
    ":pytest.PytestUnraisableExceptionWarning"
)


class Harness(JetStreamHarness):
    share = 1.0 if DEEP else 0.05


TestJetStream = conformance(Harness())
