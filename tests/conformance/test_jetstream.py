import pytest
from tests.conformance.harnesses import JetStreamHarness

from sched_testkit import conformance

# While the connection is cut, nats-py leaves the sockets of failed attempts to the collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(Transport.__del__|StreamWriter.__del__|socket.socket fd)"
    ":pytest.PytestUnraisableExceptionWarning"
)

TestJetStream = conformance(JetStreamHarness())
