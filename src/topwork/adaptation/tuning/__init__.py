"""What of a trunk and its head may learn, one file each: a frozen `graft.Scope`.

make("adaptation.tuning", "last_stages(1)")
"""

ROOM = "adaptation.tuning"
