"""A model of texts small enough for a test: a row per piece, their mean, four labels."""

import numpy as np
from onnx import numpy_helper, parser

from topwork.artefact import bundle, card
from topwork.artefact.onnx import compose
from topwork.artefact.weights import tensors
from topwork.modalities.wordpiece import WordPiece
from topwork.types import Card, Head, Metric, Preprocess

LABELS = ("negative", "positive")
WORDS = ["[UNK]", "a", "the", "film", "was", "good", "bad", "great", "awful", "!", ".", "not", "##s", "好", "坏"]
TRUNK = """
<ir_version: 9, opset_import: ["" : 19]>
tiny (int64[W, L] ids, float[W, L] weights) => (float[W, 6] features)
{
    rows = Gather (table, ids)
    wide = Unsqueeze (weights, last)
    weighed = Mul (rows, wide)
    total = ReduceSum <keepdims = 0> (weighed, middle)
    count = ReduceSum <keepdims = 0> (wide, middle)
    floor = Max (count, one)
    features = Div (total, floor)
}"""


class TinyText:
    """A backbone of texts with a vocabulary of fifteen pieces."""

    card = Card(
        spec="tiny",
        name="tiny",
        architecture="table",
        preprocess=Preprocess(0, 0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        weights="ab" * 32,
        modality="text",
    )
    reader = WordPiece.of(WORDS)

    def table(self):
        rows = np.random.default_rng(3).normal(0, 0.3, (len(WORDS), 6)).astype(np.float32)
        for word, sign in {"good": 1, "great": 2, "好": 1, "bad": -1, "awful": -2, "坏": -1}.items():
            rows[WORDS.index(word), 0] = 3 * sign
        return rows

    def graph(self):
        model = parser.parse_model(TRUNK)
        arrays = {
            "table": self.table(),
            "last": np.array([2]),
            "middle": np.array([1]),
            "one": np.array([1], np.float32),
        }
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
        return model.SerializeToString()

    def module(self):
        raise NotImplementedError


def head():
    weight = np.zeros((6, 2), np.float32)
    weight[0] = -1.0, 1.0
    weight[1:] = np.random.default_rng(5).normal(0, 0.1, (5, 2))
    return Head("linear", {"weight": weight, "bias": np.array([0.1, -0.1], np.float32)}, "softmax", 0.7, "logistic")


def write(folder, top=None, backbone=None, labels=LABELS):
    """Save it as a fit would."""
    top, backbone = top or head(), backbone or TinyText()
    folder.mkdir(parents=True, exist_ok=True)
    manifest = bundle.write(
        folder,
        onnx=compose(backbone, top, labels),
        weights=tensors(backbone.graph(), top),
        card=backbone.card,
        head=top,
        labels=labels,
        task="text-classification",
        name="films",
        reader=backbone.reader.files(),
    )
    readme = card.render(manifest, {"accuracy": Metric(0.75, 0.6, 0.85, 40)}, measured_on="the test split")
    bundle.add(folder, {"README.md": readme.encode()})
    return folder
