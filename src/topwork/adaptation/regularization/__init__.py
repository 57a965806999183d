"""What holds a tuning near its start or evens it out, one file each: a frozen `Technique`.

make("adaptation.regularization", "l2_sp(beta=0.01)")
"""

ROOM = "adaptation.regularization"
