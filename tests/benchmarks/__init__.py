"""How fast gpud is, as ratios: against a C program, against its peers, against a bare Python.

    python -m tests.benchmarks [--quick] [--json FILE] [--check] [FIGURE ...]

Theory of measurement:

Rule 1: a machine has moods. What is compared is run in turns, in one run, and a ratio is the median
    of the ratios of neighbours, never the ratio of two medians taken at different times.
Rule 2: the reference for starting jobs is `c_limit.c`, compiled on the spot: no program that starts
    a process for each job can be faster by more than noise.
Rule 3: nothing is deleted between two rounds: ext4 is ten times slower at making files in a
    directory group just after many deletes.
Rule 4: gpud is measured from outside, as its users meet it: the installed commands, the real
    socket, a state directory on the local disk.

The limits stand in `limits.py` and nowhere else. `test_smoke.py` shows that all of this works; it
asserts no time.
"""
