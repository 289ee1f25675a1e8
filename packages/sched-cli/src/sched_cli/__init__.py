"""The command line of sched-core: a driving adapter like any service.

Read in this order: ``output`` (the only place that prints), ``text`` (values as text and as JSON),
``timeline`` (a day as characters), ``application`` (what the commands share), ``health`` and
``doctor`` (what is wrong, and what may be), ``inspection``, ``operations`` and ``service`` (the
commands), ``main``.
"""
