"""Learning from the worst of all small changes of an item, one file each: a frozen `Technique`.

make("adaptation.robust", "adversarial(eps=4)")
"""

ROOM = "adaptation.robust"
