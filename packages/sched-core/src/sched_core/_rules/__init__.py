"""Every decision about a job: pure functions of values and a given ``now``.

Three ideas carry all of them.

1.  *An occurrence has a name.* ``Pending`` is given its number once. Edits, pauses and requests
    never touch a pending occurrence of another origin. ``finish`` finds the occurrence by its
    number, or sees that it is gone.
2.  *What a claim is for* is ``current`` of the stored standing. A claim for nothing (``None``) only
    ends a pause: it begins no occurrence, so losing it costs none.
3.  *A pause is a gap in the schedule.* All counting is done on the schedule's moments without the
    gaps (``Grid``); no other rule knows what a pause once did.

An occurrence is "due" or "inside a pause" by its nominal moment; jitter only delays its claim.

``grid`` counts moments, ``standing`` says what a claim is for, ``moment`` checks stored moments,
``record`` writes the history. On them are built ``define`` (admit, edit, remove), ``operate``
(pause, resume, skip, cancel), ``request`` (trigger, rerun, backfill), ``begin``, ``finish``, and
``hold`` (lost and freed claims).
"""
