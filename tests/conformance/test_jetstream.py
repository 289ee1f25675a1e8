from tests.conformance.harnesses import JetStreamHarness

from sched_testkit import conformance

TestJetStream = conformance(JetStreamHarness())
