"""Numbers that can be trusted, and what they are read from.

score.py      every metric with its interval         intervals.py   the interval methods, chosen by simulated coverage
paired.py     is the second model better?            calibrate.py   temperature, reliability
power_law.py, quick_ridge.py   what the label curve is made of
checks/       one file per question asked of a model: `run(context)` yields (name, value)
"""
