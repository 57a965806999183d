"""Objectives that make a trunk, one file each: a frozen dataclass that keeps the promise of `adaptation.Method`.

make("adaptation.pretraining", "simclr(temperature=0.2)")
"""

ROOM = "adaptation.pretraining"
