"""The command line of sched-core: a driving adapter like any service.

Read in this order: ``words`` (values as text and as JSON), ``plot`` (a day as characters),
``doctor`` (what may be wrong), ``shared``, ``looking``, ``operating``,
``running`` (the commands), ``main``.
"""
