"""What the items are like before anything is learnt: looked at, compared with each other, divided.

inspect.py      inspect(dataset, store) -> Findings       check_trainable(dataset)
duplicates.py   twins(...): the same picture has the same number
split/          assign(dataset, seed) -> Dataset with a `split` column; folds(...)
"""
