"""Encoders of texts cut in two: both halves in a row are the whole, for every architecture that can be cut."""

import copy

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from topwork.backbones.text_head import Head  # noqa: E402
from topwork.backbones.text_stages import TextStages  # noqa: E402
from topwork.backbones.text_trunk import TextTrunk  # noqa: E402
from topwork.errors import BadSetting  # noqa: E402

SIZES = {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
         "intermediate_size": 32, "max_position_embeddings": 40, "pad_token_id": 0}  # fmt: skip
KINDS = {
    "bert": {},
    "roberta": {"pad_token_id": 1},
    "mpnet": {"pad_token_id": 1},
    "electra": {"embedding_size": 8},
    "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 4, "bos_token_id": 1, "eos_token_id": 2},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
}


def trunk(kind, **more):
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **(SIZES | KINDS.get(kind, {}) | more))
    return TextTrunk(transformers.AutoModel.from_config(config), Head(), None).eval()


def items():
    ids = torch.randint(3, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    weights = (torch.arange(9) < torch.tensor([[9], [4], [1]])).float()
    return ids, weights


@pytest.mark.parametrize("kind", KINDS)
def test_both_parts_are_the_whole(kind):
    whole = trunk(kind)
    ids, weights = items()
    stages = TextStages.of(whole)
    assert len(stages.names) == 4
    assert sum(share for stage in stages.shares for share in stage) == pytest.approx(1)
    first = len(stages.names[0])
    with torch.no_grad():
        wanted = whole(ids, weights)
        for k in (first, first + 2):
            below, above = TextStages.of(whole).cut(k)
            states = below(ids, weights)
            assert len(states) == 1
            assert torch.equal(above.eval()(*states, ids, weights), wanted)
            assert torch.equal(copy.deepcopy(above)(*states, ids, weights), wanted)
            states[0][weights == 0] = 0.0  # what is stored holds nothing of the padding
            assert torch.allclose(above(*states, ids, weights), wanted, atol=1e-6)


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_parts_share_what_learns_and_nothing_below_does(kind):
    whole = trunk(kind)
    stages = TextStages.of(whole)
    k = len(stages.names[0]) + 1
    _, above = stages.cut(k)
    own, ours = dict(whole.named_parameters()), dict(above.named_parameters())
    assert ours
    assert all(own[name] is p for name, p in ours.items())
    below = [name for name in own if any(name.startswith(f"{layer}.") for layer in stages.layers[:k])]
    assert below
    assert not set(below) & set(ours)
    assert not any(own[name].requires_grad for name in below)


def test_shared_blocks_cannot_be_told_apart():
    with pytest.raises(BadSetting, match="lp_ft or full"):
        TextStages.of(trunk("albert"))
    with pytest.raises(BadSetting, match="no list of blocks"):
        TextStages.of(torch.nn.Linear(2, 2))


def test_a_cut_lies_between_blocks():
    stages = TextStages.of(trunk("bert"))
    for k in (0, 4):
        with pytest.raises(BadSetting, match="n from 1 to 3"):
            stages.cut(k)
