"""What changes the layers themselves, one file each: a frozen `Technique`. What it puts in is part of what is shipped.

make("adaptation.surgery", "mlp_head(256, dropout=0.2)")
"""

ROOM = "adaptation.surgery"
