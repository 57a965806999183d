"""What the items are like before anything is learnt: looked at, compared with each other, divided.

inspect.py      inspect(dataset, store) -> Findings       check_trainable(dataset)
inspect_*.py    look(dataset) -> what images or texts tell, as arrays
findings.py     what is worth saying about it
duplicates.py   twins(...): the same picture has the same number
minhash.py      near_pairs(texts, kinds): texts that are nearly the same
label_errors.py label_errors(p, targets): labels that are probably wrong
outliers.py     outliers(x): items unlike all others
stems.py        candidates(items, ...), closeness(...): groups that leak
shift.py        shift(x, first, second, ...): can two splits be told apart?
projection.py   project(x): a map of the items
proposals.py    propose(finding, dataset): what to do with every row
clean.py        write(dataset, plan, out): a new dataset without what is wrong
split/          assign(dataset, seed) -> Dataset with a `split` column; folds(...)
"""
