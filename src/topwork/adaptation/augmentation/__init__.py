"""What the items look like while they are learnt, one file each: a frozen `Technique`.

make("adaptation.augmentation", "mixup(alpha=0.2)")
"""

ROOM = "adaptation.augmentation"
