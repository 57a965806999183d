"""Ways to adapt a pretrained trunk to a new task; one folder per role of a method.

probe/   heads solved on frozen, cached features, with no training loop
"""
