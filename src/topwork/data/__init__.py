"""What the items are like before anything is learnt: looked at, compared with each other, divided.

inspect.py      inspect(dataset, store) -> Findings       check_trainable(dataset)
inspect_*.py    look(dataset) -> what images or texts tell, as arrays
findings.py     what is worth saying about it
duplicates.py   twins(...): the same picture has the same number
minhash.py      near_pairs(texts, kinds): texts that are nearly the same
split/          assign(dataset, seed) -> Dataset with a `split` column; folds(...)
"""
