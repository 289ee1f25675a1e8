"""The rules of occurrences, attacked: all short histories of small alphabets, and long random ones.

``world`` is one id in a tiny store, two workers, and a clock that anybody may set. The judge is the
testkit's: it knows what was commanded and observed, and calls nothing of the rules. A history ends
by being drained: the pause ends, time goes on, a healthy worker runs what is there. Then every
moment, every request and every begun occurrence must be accounted for.
"""
