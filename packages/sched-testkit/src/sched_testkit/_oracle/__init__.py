"""The oracle: judges whole histories, and shares no code with what it judges.

:class:`~sched_testkit._oracle.oracle.Oracle` is the whole. Each part holds the parts that it needs:

========================  ======================================================================
Module                    Judges or remembers
========================  ======================================================================
``moments``               when a schedule occurs, computed by hand
``incarnations``          one incarnation of a job: its schedules, pauses and requests
``known``                 all incarnations, and the order of everything that happened
``observed``              what handlers and executions have shown of each occurrence
``starts``                what a handler is told when it is called
``history``               the order of an occurrence's executions
``accounting``            that every moment and request has its end, once all is at rest
``judge``                 these parts together, for histories without a store
``claims``                claims, leases and tokens
``attempts``              calls of handlers, and what is written of them
``lateness``              misfire policies
``executions``            the stored history: nothing vanishes, changes or contradicts itself
``stored``                the stored jobs
``commands``              what commands return
``oracle``                all parts together
========================  ======================================================================
"""
