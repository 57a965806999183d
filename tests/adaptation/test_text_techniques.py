"""SetFit against the sums written out, token dropout, batches of like length, and what cannot work on texts."""

import dataclasses
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from topwork.adaptation import Vocabulary  # noqa: E402
from topwork.adaptation.augmentation.synonyms import Synonyms, neighbours  # noqa: E402
from topwork.adaptation.augmentation.token_dropout import TokenDropout, thinned  # noqa: E402
from topwork.adaptation.feed import CHUNK, Feed, Order, Setup  # noqa: E402
from topwork.adaptation.graft import Grafted, check_items, techniques  # noqa: E402
from topwork.adaptation.tuning.setfit import Setfit, alike, contrastive_loss, cosine_loss, cosines  # noqa: E402
from topwork.errors import BadSetting  # noqa: E402

from ._tuned import batch, facts, step, trunk, tune  # noqa: E402


def test_setfit_losses_are_the_sums_of_the_papers():
    z = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 0, 1, 2, 1, 0, 3])
    c, g = cosines(z), alike(y, 4)
    pull, push, terms = [], [], []
    for i in range(7):
        for j in range(i + 1, 7):
            cos = float(z[i] @ z[j] / z[i].norm() / z[j].norm())
            (pull if y[i] == y[j] else push).append((1 - cos) ** 2 if y[i] == y[j] else cos**2)
        others = [j for j in range(7) if j != i]
        cos = {j: float(torch.nn.functional.cosine_similarity(z[i], z[j], dim=0)) for j in others}
        below = sum(math.exp(cos[j] / 0.2) for j in others)
        same = [j for j in others if y[j] == y[i]]
        if same:
            terms.append(-sum(math.log(math.exp(cos[j] / 0.2) / below) for j in same) / len(same))
    assert float(cosine_loss(c, g)) == pytest.approx((np.mean(pull) + np.mean(push)) / 2, rel=1e-5)
    assert float(contrastive_loss(c, g, 0.2)) == pytest.approx(np.mean(terms), rel=1e-5)


@pytest.mark.parametrize("y", [[0, 0, 0], [0, 1, 2]])
def test_one_kind_of_pairs_alone_is_a_loss_too(y):
    z = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for loss in (cosine_loss(cosines(z), alike(torch.tensor(y), 3)),
                 contrastive_loss(cosines(z), alike(torch.tensor(y), 3), 0.1)):  # fmt: skip
        assert torch.isfinite(loss)
        loss.backward()
        assert torch.isfinite(z.grad).all()


def test_setfit_pulls_classes_together():
    method = tune(first=Setfit())
    model = method.prepare(trunk(), facts()).train()
    lines = [step(method, model, batch(step=0), rate=0.3) for _ in range(30)]
    assert lines[-1]["task"] < 0.7 * lines[0]["task"]
    assert lines[-1]["head"] < lines[0]["head"]
    assert method.episode == (8, 4)


def test_setfit_options():
    assert Setfit(pairs=20).passes() == 40
    assert Setfit(5, epochs=2).passes() == 20
    assert Setfit().passes() is None
    assert (Setfit().batch_of(13, 32), Setfit(batch=8).batch_of(100, 32)) == (13, 8)
    assert Setfit().usual_rate("text") < Setfit().usual_rate("image")
    for wrong in ({"pairs": 0}, {"objective": "triplet"}, {"temperature": 0}, {"patience": 2}):
        with pytest.raises(BadSetting):
            Setfit(**wrong)


def texts(B=40, L=20, seed=0):
    ids = torch.randint(5, 99, (B, L), generator=torch.Generator().manual_seed(1))
    lengths = torch.arange(B) % (L - 2) + 3
    weights = (torch.arange(L) < lengths[:, None]).float()
    ids[:, 0] = 1
    ids[torch.arange(B), lengths - 1] = 2
    given = batch(targets=torch.zeros(B, dtype=torch.int64), x=ids, seed=seed)
    return dataclasses.replace(given, views=(ids, weights))


def test_token_dropout_leaves_out_words_and_keeps_the_rest():
    model = Grafted(torch.nn.Identity(), torch.nn.Linear(2, 2))
    technique = TokenDropout(0.3)
    technique.prepare(model, facts(modality="text", vocabulary=Vocabulary(99, 3, (0, 1, 2))))
    given = texts()
    ids, weights = technique.inputs(model, given).views
    assert torch.equal(ids, given.views[0])
    gone = (given.views[1] > 0) & (weights == 0)
    assert not (gone & torch.isin(ids, torch.tensor([0, 1, 2]))).any()
    inner = (given.views[1] > 0) & ~torch.isin(ids, torch.tensor([0, 1, 2]))
    assert float(gone.sum() / inner.sum()) == pytest.approx(0.3, abs=0.05)
    assert torch.equal(weights[~gone], given.views[1][~gone])
    assert torch.equal(technique.inputs(model, texts()).views[1], weights)  # the batch's generator decides
    technique.finish(model)
    assert not dict(model.named_buffers())


def test_half_of_a_text_stays():
    weights = torch.ones(8, 6)
    left = thinned(weights, torch.ones(8, 6, dtype=torch.bool), 0.99, torch.Generator().manual_seed(0))
    assert (left.sum(1) >= 3).all()


class Table(torch.nn.Module):
    """Tokens 10 to 49 lie near those 40 further on, 50 to 89 back; the others near none."""

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(4)
        table = torch.randn(99, 64, generator=draw)
        table[50:90] = table[10:50] + 0.2 * torch.randn(40, 64, generator=draw)
        self.words = torch.nn.Embedding.from_pretrained(table)
        self.network = self

    def get_input_embeddings(self):
        return self.words


def test_synonyms_are_near_words_and_others_stay():
    model = Grafted(Table(), torch.nn.Linear(2, 2))
    technique = Synonyms(0.4)
    technique.prepare(model, facts(modality="text", vocabulary=Vocabulary(99, 3, (0, 1, 2, 12, 52))))
    given = texts()
    ids, weights = given.views
    seen, same = technique.inputs(model, given).views
    assert torch.equal(same, weights)
    changed = seen != ids
    partner = torch.arange(99)
    partner[10:50], partner[50:90] = torch.arange(50, 90), torch.arange(10, 50)
    assert torch.equal(seen[changed], partner[ids[changed]])
    inside = weights > 0
    assert not (changed & ~inside).any()
    paired = inside & (ids >= 10) & (ids < 90) & (ids != 12) & (ids != 52)
    assert not (changed & ~paired).any()  # neither special ones nor those whose only neighbour is special
    assert float(changed[paired].float().mean()) == pytest.approx(0.4, abs=0.05)
    assert torch.equal(technique.inputs(model, texts()).views[0], seen)  # the batch's generator decides
    technique.finish(model)
    assert not [name for name, _ in model.named_buffers() if "synonyms" in name]


def test_neighbours_are_those_of_a_plain_search():
    unit = torch.nn.functional.normalize(torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    found = neighbours(unit, torch.arange(30), torch.tensor([3, 4]), 0.7, 2)
    cosine = (unit @ unit.T).numpy()
    for i in range(30):
        near = sorted((j for j in range(30) if j not in (i, 3, 4) and cosine[i, j] >= 0.7), key=lambda j: -cosine[i, j])
        assert [j for j in found[i].tolist() if j >= 0] == near[:2]


def test_synonyms_need_the_whole_encoder():
    with pytest.raises(BadSetting, match="needs a whole encoder"):
        Synonyms().prepare(Grafted(torch.nn.Identity(), torch.nn.Linear(2, 2)), facts(modality="text"))
    for wrong in ({"p": 0}, {"near": 1.5}, {"nearest": 0}):
        with pytest.raises(BadSetting, match=r"^synonyms"):
            Synonyms(**wrong)


def lengths_of(order, epoch, B):
    rows, _ = order.at(epoch * order.length // B * B, order.length // B * B)
    return order.lengths[rows].reshape(-1, B)


def test_batches_hold_items_of_like_length_and_every_item_once():
    N, B = 1003, 8
    lengths = np.random.default_rng(0).integers(3, 200, N)
    order = Order(np.zeros(N, np.int64), None, 5, lengths=lengths, batch=B)
    for epoch in range(3):
        assert sorted(order.epoch(epoch)[0]) == list(range(N))
    rows, _ = order.at(0, 3 * N // B * B)
    shown = lengths[rows].reshape(-1, B)  # batches as they are trained, over the ends of epochs
    padded = shown.max(1, keepdims=True) * B
    assert shown.sum() / padded.sum() > 0.9
    plain = Order(np.zeros(N, np.int64), None, 5)
    loose = lengths[plain.at(0, 3 * N // B * B)[0]].reshape(-1, B)
    assert loose.sum() / (loose.max(1) * B).sum() < 0.65
    firsts = shown.max(1)[: N // B]
    assert np.corrcoef(np.arange(len(firsts)), firsts)[0, 1] ** 2 < 0.1  # in no order of length
    other = Order(np.zeros(N, np.int64), None, 6, lengths=lengths, batch=B)
    assert not np.array_equal(other.at(0, N)[0], order.at(0, N)[0])
    assert CHUNK * B < N


def test_few_items_are_all_shown_too():
    for N in (1, 3, 17):
        order = Order(np.zeros(N, np.int64), None, 0, lengths=np.arange(N) + 1, batch=8)
        for epoch in range(4):
            assert sorted(order.epoch(epoch)[0]) == list(range(N))


def test_a_feed_of_texts_gives_what_is_stored():
    ids, weights = np.arange(40).reshape(10, 4), np.ones((10, 4), np.float32)
    feed = Feed(None, np.arange(10) % 2, 0, classes=(2,), stored=lambda rows, _: [ids[rows], weights[rows]],
                modality="text", lengths=np.full(10, 4))  # fmt: skip
    method = tune(first=Setfit())
    (_, [[made]]), *_ = feed.batches([method], 0, Setup(1, 4))
    assert made.views[0].dtype == torch.int64
    assert torch.equal(made.views[0], torch.from_numpy(ids)[made.rows])
    assert feed.facts(3, 1, 0).modality == "text"


@pytest.mark.parametrize("name", ["mixup", "cutmix", "random_erasing", "view", "adversarial", "stochnorm"])
def test_what_is_of_images_is_refused_for_texts(name):
    with pytest.raises(BadSetting, match=f"^{name} works on images, and these items are texts"):
        check_items(techniques(f"lp_ft + {name}"), "text")
    check_items(techniques(f"lp_ft + {name}"), "image")


def test_what_is_of_texts_is_refused_for_images():
    with pytest.raises(BadSetting, match=r"^token_dropout works on texts, and these items are images"):
        check_items(techniques("lp_ft + token_dropout"), "image")
