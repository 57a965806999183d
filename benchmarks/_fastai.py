"""fastai's side of budget.py, run by the Python of fastai's own venv.

    python _fastai.py TABLE.csv WEIGHTS.safetensors SECONDS OUT.json

timm's mobilenetv2_100 with the given weights, items resized to 256 px, `aug_transforms(size=224)`, batches of 64, the
learning rate that `fine_tune` has by itself. `fine_tune(1)` runs first and is timed; where more epochs fit into the
time it is run again from the start with as many. The trial and the answers are not counted.
"""

import json
import sys
import time

import pandas as pd
import timm
from fastai.vision.all import (
    Callback,
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    ImageBlock,
    Learner,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    create_head,
    nn,
    params,
    torch,
)
from safetensors.torch import load_file

MEAN = STD = [0.5, 0.5, 0.5]  # what these weights were trained with


class Net(nn.Sequential):
    """Body and fastai's own head."""


def learner(dls: object, weights: str) -> Learner:
    """As vision_learner builds it, with local weights."""
    body = timm.create_model("mobilenetv2_100", pretrained=False, pad_type="same", num_classes=0, global_pool="")
    state = {k: v for k, v in load_file(weights).items() if not k.startswith("classifier")}
    missing = body.load_state_dict(state, strict=False)
    assert not missing.missing_keys, missing
    net = Net(body, create_head(body.num_features, dls.c))
    learn = Learner(dls, net, metrics=accuracy, splitter=lambda m: [params(m[0]), params(m[1])])
    learn.freeze()
    return learn


class Clock(Callback):
    """Seconds of every epoch, its validation included."""

    def before_fit(self) -> None:
        """Nothing has been timed of this fit."""
        self.seconds = getattr(self, "seconds", [])

    def before_epoch(self) -> None:
        """Start."""
        self.began = time.perf_counter()

    def after_epoch(self) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.began)


def main() -> None:
    """Train, ask, write."""
    table, weights, seconds, out = sys.argv[1:]
    began = time.perf_counter()
    frame = pd.read_csv(table)
    frame["is_test"] = frame["split"] == "test"
    block = DataBlock(
        (ImageBlock, CategoryBlock),
        get_x=ColReader("image"), get_y=ColReader("label"), splitter=ColSplitter("is_test"),
        item_tfms=Resize(256), batch_tfms=[*aug_transforms(size=224), Normalize.from_stats(MEAN, STD)],
    )  # fmt: skip
    dls = block.dataloaders(frame, bs=64, num_workers=0)
    prepared = time.perf_counter() - began
    torch.manual_seed(0)
    clock, began = Clock(), time.perf_counter()
    learn = learner(dls, weights)
    learn.fine_tune(1, cbs=clock)
    spent, epochs = prepared + time.perf_counter() - began, 1
    more = 1 + int((float(seconds) - spent) / clock.seconds[-1])  # the last epoch is one of everything
    if more > 1:
        torch.manual_seed(0)
        began = time.perf_counter()
        learn, epochs = learner(dls, weights), more
        learn.fine_tune(more)
        spent = prepared + time.perf_counter() - began
    test = frame[frame["is_test"]]
    answers, _ = learn.get_preds(dl=dls.test_dl(test, bs=64))
    said = [dls.vocab[i] for i in answers.argmax(1).tolist()]
    found = {"answers": dict(zip(test["image"], said, strict=True)), "seconds": spent, "epochs": epochs}
    with open(out, "w") as file:
        json.dump(found, file)


if __name__ == "__main__":
    main()
