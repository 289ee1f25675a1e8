"""How our own backends are examined. A third party's file has one of these classes in it."""

from datetime import timedelta

LEASE = timedelta(seconds=30)
