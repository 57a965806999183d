"""Hidden tokens: how many, what stands in their place, and what is never hidden."""

import pytest

torch = pytest.importorskip("torch")

from topwork.nn.masked_tokens import hide  # noqa: E402

SPECIAL = torch.tensor([0, 1, 2])
MASK, V = 3, 1000


def looked(B=64, L=128, share=0.15, seed=0):
    ids = torch.randint(4, V, (B, L), generator=torch.Generator().manual_seed(9))
    ids[:, 0], ids[:, -1] = 1, 2
    weights = torch.ones(B, L)
    weights[: B // 2, L // 2 :] = 0
    seen, hidden = hide(ids, weights, share, V, MASK, SPECIAL, torch.Generator().manual_seed(seed))
    return ids, weights, seen, hidden


def test_shares_are_those_of_the_paper():
    ids, weights, seen, hidden = looked()
    able = (weights > 0) & ~torch.isin(ids, SPECIAL)
    n = int(hidden.sum())
    assert n / int(able.sum()) == pytest.approx(0.15, abs=0.01)
    assert int((seen == MASK)[hidden].sum()) / n == pytest.approx(0.8, abs=0.03)
    assert int((seen == ids)[hidden].sum()) / n == pytest.approx(0.1, abs=0.03)
    assert torch.equal(seen[~hidden], ids[~hidden])
    assert not (hidden & ~able).any()


def test_the_generator_decides():
    a, b, other = looked(), looked(), looked(seed=1)
    assert torch.equal(a[2], b[2])
    assert torch.equal(a[3], b[3])
    assert not torch.equal(a[3], other[3])


def test_one_token_at_least_is_hidden_where_there_is_one():
    generator = torch.Generator().manual_seed(0)
    ids, weights = torch.tensor([[1, 9, 2]]), torch.ones(1, 3)
    for _ in range(20):
        assert hide(ids, weights, 1e-6, V, MASK, SPECIAL, generator)[1].tolist() == [[False, True, False]]
    assert not hide(ids, torch.zeros(1, 3), 0.5, V, MASK, SPECIAL, generator)[1].any()
