"""How fast gpud is, as ratios: against a C program, against its peers, against a bare Python.

    python -m tests.benchmarks [--quick] [--json FILE] [--check] [FIGURE ...]

Theory of measurement:

Rule 1: a machine has moods. What is compared is run in turns, in one run, and a ratio is the median
    of the ratios of neighbours, never the ratio of two medians taken at different times.
Rule 2: the reference for starting jobs is `c_limit.c`, compiled on the spot: no program that starts
    a process for each job can be faster by more than noise.
Rule 3: ext4 is up to twenty times slower at making files near many that were deleted in the last
    minutes: 0.3 ms for a log instead of 0.02. So nothing is deleted between two rounds, and each
    figure's directory is put into another part of the disk (`place.py`).
Rule 4: gpud is measured from outside, as its users meet it: the installed commands, the real
    socket, a state directory on the local disk. Only decisions (`deciding.py`, `simulated.py`) are
    measured inside one process: what is asked of them is how they grow, up to 1,024 GPUs.

The limits stand in `limits.py` and nowhere else. `test_smoke.py` shows that all of this works; it
asserts no time.
"""
