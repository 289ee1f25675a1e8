"""Every decision, and nothing else: pure functions of values and a given ``now``.

Three ideas carry all of it.

1.  *An occurrence has a name.* ``Pending`` is given its number once. Edits, pauses and requests
    never touch a pending occurrence that is not theirs; ``finish`` finds it by number, or sees that
    it is gone.
2.  *What a claim is for* is ``current`` of the stored standing. A claim for nothing (``None``) only
    ends a pause: it begins no occurrence, so losing it costs none.
3.  *A pause is a gap in the schedule.* All counting is done on the schedule's moments without the
    gaps (``Grid``); no other rule knows what a pause once did.

"Due" and "inside a pause" are said of an occurrence's nominal moment; jitter only delays its claim.

Read in this order: ``grid``, ``standing`` (what a claim is for), ``moment`` (stored moments are
checked), ``define`` (admit, edit, remove), ``operate`` (pause, resume, skip, cancel), ``request``
(trigger, rerun, backfill), ``begin``, ``finish``, ``hold`` (lost and freed claims), ``record``
(what is written about all that).
"""
