"""What a wrong answer costs, one file each: a frozen `Technique` with a `task` loss.

make("adaptation.losses", "focal(gamma=2.0)")
"""

ROOM = "adaptation.losses"
