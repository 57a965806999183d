import numpy as np

from topwork.features.contents import Contents
from topwork.features.matrix import Matrix


def test_rows_of_missing_contents_close_up_without_a_copy(monkeypatch):
    """Against plain indexing, for random duplicates and gaps; moved in small pieces to cross their borders."""
    monkeypatch.setattr("topwork.features.matrix.AT_ONCE", 7)
    draw = np.random.default_rng(0)
    for _ in range(50):
        contents = draw.integers(1, 40)
        index = draw.integers(-1, contents, 100)
        _, index = np.unique(np.append(-1, index), return_inverse=True)
        index = index[1:] - 1
        contents = index.max() + 1
        values = draw.normal(size=(contents, 3)).astype(np.float32)
        readable = draw.permutation(contents)[: draw.integers(0, contents + 1)]
        matrix = Matrix(Contents([b"%d" % u for u in range(contents)], index), 3)
        for part in np.array_split(readable, 4):
            matrix.fill(part, values[part])
        memory = matrix._x
        x, rows = matrix.finish()
        assert rows.tolist() == [i for i, u in enumerate(index) if u in readable and u >= 0]
        assert (x == values[index[rows]]).all()
        assert len(readable) == matrix.filled
        assert memory is None or x.base is memory
