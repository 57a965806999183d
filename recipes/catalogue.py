"""Write src/topwork/backbones/catalogue.toml: facts about backbones, computed from the libraries wherever they can be.

    python recipes/catalogue.py [--results results-imagenet.csv]

From timm's pretrained_cfg, torchvision's weight records and transformers' config classes: input, mean, std, licence,
ImageNet top-1 (torchvision). Counted on the meta device, where a network has shapes and no weights: parameters,
multiply-adds, embedding size, depthwise. By hand, below: family, year of the architecture's paper, pretraining set.
timm's wheel has no top-1; they come from results/results-imagenet.csv of its repository (commit aa4b585, 2026-08-08),
at the catalogue's own input size. What is not certain is left out.

Parameters and multiply-adds are those of the published network, classifier included, for one image, 128 tokens or
one second of sound at 16 kHz (Whisper and AST: their fixed 30 s and 10 s).
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
import transformers
from timm.data.config import resolve_data_config
from torch import Tensor, nn

from topwork import plugins
from topwork.backbones.folder_write import multiply_adds
from topwork.backbones.trunk import TimmTrunk, TorchvisionTrunk

TARGET = Path(__file__).parents[1] / "src/topwork/backbones/catalogue.toml"
TOKENS, RATE_HZ = 128, 16_000

ITEMS = {  # pretraining set: items in it, where the number is certain
    "imagenet-1k": 1_281_167,
    "imagenet-21k": 14_197_122,
    "lvd-142m": 142_000_000,
    "lvd-1689m": 1_689_000_000,
    "clip-400m": 400_000_000,
    "1b sentence pairs": 1_170_060_424,
}

IN1K, IN12K, IN21K = "imagenet-1k", "imagenet-12k", "imagenet-21k"
TIMM = {  # name: family, year, pretraining set
    "convnext_atto.d2_in1k": ("convnext", 2022, IN1K),
    "convnext_nano.in12k_ft_in1k": ("convnext", 2022, IN12K),
    "convnext_tiny.fb_in22k_ft_in1k": ("convnext", 2022, IN21K),
    "convnext_tiny.dinov3_lvd1689m": ("convnext", 2022, "lvd-1689m"),
    "convnextv2_atto.fcmae_ft_in1k": ("convnextv2", 2023, IN1K),
    "deit_tiny_patch16_224.fb_in1k": ("deit", 2020, IN1K),
    "deit3_small_patch16_224.fb_in22k_ft_in1k": ("deit3", 2022, IN21K),
    "densenet121.ra_in1k": ("densenet", 2016, IN1K),
    "edgenext_xx_small.in1k": ("edgenext", 2022, IN1K),
    "efficientformerv2_s0.snap_dist_in1k": ("efficientformerv2", 2022, IN1K),
    "efficientnet_b0.ra_in1k": ("efficientnet", 2019, IN1K),
    "efficientnet_lite0.ra_in1k": ("efficientnet_lite", 2020, IN1K),
    "tf_efficientnetv2_b0.in1k": ("efficientnetv2", 2021, IN1K),
    "efficientvit_b0.r224_in1k": ("efficientvit", 2022, IN1K),
    "fastvit_t8.apple_in1k": ("fastvit", 2023, IN1K),
    "ghostnet_100.in1k": ("ghostnet", 2019, IN1K),
    "lcnet_050.ra2_in1k": ("lcnet", 2021, IN1K),
    "lcnet_100.ra2_in1k": ("lcnet", 2021, IN1K),
    "levit_128s.fb_dist_in1k": ("levit", 2021, IN1K),
    "mobilenetv1_100.ra4_e3600_r224_in1k": ("mobilenetv1", 2017, IN1K),
    "mobilenetv2_050.lamb_in1k": ("mobilenetv2", 2018, IN1K),
    "mobilenetv2_100.ra_in1k": ("mobilenetv2", 2018, IN1K),
    "mobilenetv3_small_050.lamb_in1k": ("mobilenetv3", 2019, IN1K),
    "mobilenetv3_small_100.lamb_in1k": ("mobilenetv3", 2019, IN1K),
    "mobilenetv3_large_100.ra_in1k": ("mobilenetv3", 2019, IN1K),
    "mobilenetv3_large_100.miil_in21k_ft_in1k": ("mobilenetv3", 2019, "imagenet-21k-p"),
    "mobilenetv4_conv_small.e2400_r224_in1k": ("mobilenetv4", 2024, IN1K),
    "mobilenetv4_conv_medium.e500_r224_in1k": ("mobilenetv4", 2024, IN1K),
    "mobileone_s0.apple_in1k": ("mobileone", 2022, IN1K),
    "mobilevit_xxs.cvnets_in1k": ("mobilevit", 2021, IN1K),
    "regnety_002.pycls_in1k": ("regnet", 2020, IN1K),
    "repvit_m0_9.dist_450e_in1k": ("repvit", 2023, IN1K),
    "resnet10t.c3_in1k": ("resnet", 2015, IN1K),
    "resnet18.a1_in1k": ("resnet", 2015, IN1K),
    "resnet50.a1_in1k": ("resnet", 2015, IN1K),
    "semnasnet_075.rmsp_in1k": ("mnasnet", 2018, IN1K),
    "swin_tiny_patch4_window7_224.ms_in22k_ft_in1k": ("swin", 2021, IN21K),
    "tiny_vit_5m_224.dist_in22k_ft_in1k": ("tiny_vit", 2022, IN21K),
    "tinynet_e.in1k": ("tinynet", 2020, IN1K),
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": ("vit", 2020, IN21K),
    "vit_small_patch16_224.augreg_in21k_ft_in1k": ("vit", 2020, IN21K),
    "vit_small_patch14_dinov2.lvd142m": ("dinov2", 2023, "lvd-142m"),
    "vit_small_patch16_dinov3.lvd1689m": ("dinov3", 2025, "lvd-1689m"),
    "vit_base_patch16_clip_224.openai": ("clip", 2021, "clip-400m"),
    "vit_base_patch16_siglip_224.webli": ("siglip", 2023, "webli"),
}
TORCHVISION = {
    "alexnet": ("alexnet", 2014),
    "convnext_tiny": ("convnext", 2022),
    "densenet121": ("densenet", 2016),
    "efficientnet_b0": ("efficientnet", 2019),
    "googlenet": ("googlenet", 2014),
    "mnasnet0_5": ("mnasnet", 2018),
    "mobilenet_v2": ("mobilenetv2", 2018),
    "mobilenet_v3_small": ("mobilenetv3", 2019),
    "regnet_y_400mf": ("regnet", 2020),
    "resnet18": ("resnet", 2015),
    "resnet50": ("resnet", 2015),
    "shufflenet_v2_x0_5": ("shufflenetv2", 2018),
    "shufflenet_v2_x1_0": ("shufflenetv2", 2018),
    "squeezenet1_1": ("squeezenet", 2016),
    "swin_t": ("swin", 2021),
    "vgg11_bn": ("vgg", 2014),
    "vit_b_16": ("vit", 2020),
}
_MINI = "BertModel(hidden_size=384, num_hidden_layers={}, num_attention_heads=12, intermediate_size=1536{})"
_WIKI, _PAIRS, _1B, _SPEECH = "books and wikipedia", "text pairs", "1b sentence pairs", "librispeech-960h"
_IMAGENET = {"input_px": 224, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_HALF = {"input_px": 224, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
_CLIP = {"input_px": 224, "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711]}
HF: dict[str, tuple[str, str, int, str, str, dict[str, Any]]] = {  # name: class(options), family, year, licence, set
    "sentence-transformers/all-MiniLM-L6-v2": (_MINI.format(6, ""), "minilm", 2020, "apache-2.0", _1B, {}),
    "sentence-transformers/all-MiniLM-L12-v2": (_MINI.format(12, ""), "minilm", 2020, "apache-2.0", _1B, {}),
    "sentence-transformers/all-mpnet-base-v2": ("MPNetModel()", "mpnet", 2020, "apache-2.0", _1B, {}),
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2": (
        _MINI.format(12, ", vocab_size=250037"), "minilm", 2020, "apache-2.0", "paraphrases in 50 languages", {}),
    "BAAI/bge-small-en-v1.5": (_MINI.format(12, ""), "bge", 2023, "mit", _PAIRS, {}),
    "BAAI/bge-base-en-v1.5": ("BertModel()", "bge", 2023, "mit", _PAIRS, {}),
    "intfloat/e5-small-v2": (_MINI.format(12, ""), "e5", 2022, "mit", _PAIRS, {}),
    "intfloat/multilingual-e5-small": (_MINI.format(12, ", vocab_size=250037"), "e5", 2024, "mit", _PAIRS, {}),
    "thenlper/gte-small": (_MINI.format(12, ""), "gte", 2023, "mit", _PAIRS, {}),
    "google-bert/bert-base-uncased": ("BertModel()", "bert", 2018, "apache-2.0", _WIKI, {}),
    "google/bert_uncased_L-2_H-128_A-2": (
        "BertModel(hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=512)",
        "bert", 2019, "apache-2.0", _WIKI, {}),
    "distilbert/distilbert-base-uncased": ("DistilBertModel()", "distilbert", 2019, "apache-2.0", _WIKI, {}),
    "FacebookAI/roberta-base": (
        "RobertaModel(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1)",
        "roberta", 2019, "mit", "160 GB of english text", {}),
    "FacebookAI/xlm-roberta-base": (
        "XLMRobertaModel(vocab_size=250002, max_position_embeddings=514, type_vocab_size=1)",
        "xlm-roberta", 2019, "mit", "cc-100", {}),
    "answerdotai/ModernBERT-base": ("ModernBertModel()", "modernbert", 2024, "apache-2.0", "2 trillion tokens", {}),
    "facebook/wav2vec2-base": ("Wav2Vec2Model()", "wav2vec2", 2020, "apache-2.0", _SPEECH, {}),
    "facebook/hubert-base-ls960": ("HubertModel()", "hubert", 2021, "apache-2.0", _SPEECH, {}),
    "openai/whisper-tiny": (
        "WhisperEncoder(d_model=384, encoder_layers=4, encoder_attention_heads=6, encoder_ffn_dim=1536)",
        "whisper", 2022, "apache-2.0", "680,000 h of speech", {}),
    "openai/whisper-base": (
        "WhisperEncoder(d_model=512, encoder_layers=6, encoder_attention_heads=8, encoder_ffn_dim=2048)",
        "whisper", 2022, "apache-2.0", "680,000 h of speech", {}),
    "MIT/ast-finetuned-audioset-10-10-0.4593": ("ASTModel()", "ast", 2021, "bsd-3-clause", "audioset", {}),
    "facebook/dinov2-small": (
        "Dinov2Model(hidden_size=384, num_attention_heads=6, image_size=518, patch_size=14)",
        "dinov2", 2023, "apache-2.0", "lvd-142m", _IMAGENET),
    "facebook/dinov2-base": (
        "Dinov2Model(image_size=518, patch_size=14)", "dinov2", 2023, "apache-2.0", "lvd-142m", _IMAGENET),
    "google/vit-base-patch16-224": ("ViTModel()", "vit", 2020, "apache-2.0", IN21K, _HALF),
    "microsoft/resnet-18": (
        "ResNetModel(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type='basic')",
        "resnet", 2015, "apache-2.0", IN1K, _IMAGENET),
    "microsoft/resnet-50": ("ResNetModel()", "resnet", 2015, "apache-2.0", IN1K, _IMAGENET),
    "facebook/convnext-tiny-224": ("ConvNextModel()", "convnext", 2022, "apache-2.0", IN1K, _IMAGENET),
    "microsoft/swin-tiny-patch4-window7-224": ("SwinModel()", "swin", 2021, "apache-2.0", IN1K, _IMAGENET),
    "openai/clip-vit-base-patch32": ("CLIPVisionModel()", "clip", 2021, "", "clip-400m", _CLIP),
}  # fmt: skip

Entry = dict[str, Any]


def of_timm(name: str, top1: Mapping[tuple[str, int], float]) -> Entry:
    """One entry for timm."""
    family, year, pretraining = TIMM[name]
    facts = timm.get_pretrained_cfg(name)
    assert facts is not None
    config = resolve_data_config(pretrained_cfg=facts.to_dict())
    px = config["input_size"][1]
    return {
        "spec": f"timm:{name}",
        "modality": "image",
        "family": family,
        "year": year,
        **counted(on_meta(lambda: timm.create_model(name)), images(px), lambda network: TimmTrunk(network)),
        "input_px": px,
        "mean": list(config["mean"]),
        "std": list(config["std"]),
        **trained(pretraining),
        "top1": top1.get((name, px)),
        "licence": facts.license,
    }


def of_torchvision(name: str) -> Entry:
    """One entry for torchvision: its default weights."""
    family, year = TORCHVISION[name]
    record = torchvision.models.get_model_weights(name).DEFAULT  # type: ignore[attr-defined]
    pixels = record.transforms()
    options = {"init_weights": False} if name == "googlenet" else {}
    network = on_meta(lambda: torchvision.models.get_model(name, weights=None, **options))
    return {
        "spec": f"torchvision:{name}",
        "modality": "image",
        "family": family,
        "year": year,
        **counted(network, images(pixels.crop_size[0]), TorchvisionTrunk),
        "parameters": record.meta["num_params"],  # GoogLeNet's record leaves its auxiliary heads out
        "input_px": pixels.crop_size[0],
        "mean": list(pixels.mean),
        "std": list(pixels.std),
        **trained(IN1K),
        "top1": record.meta["_metrics"]["ImageNet-1K"]["acc@1"],
        "licence": "bsd-3-clause",
        "url": record.url,
    }


def of_transformers(name: str) -> Entry:
    """One entry for transformers, built from its configuration."""
    architecture, family, year, licence, pretraining, more = HF[name]
    network = build(architecture)
    modality, inputs = probe_of(network)
    with torch.no_grad():
        out = network(**inputs)
    pooled = getattr(out, "pooler_output", None)
    features = (pooled.flatten(1) if pooled is not None else out.last_hidden_state).shape[-1]
    return {
        "spec": f"hf:{name}",
        "modality": modality,
        "family": family,
        "year": year,
        "architecture": architecture,
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds": macs_of(network, inputs),
        "features": features,
        "depthwise": depthwise(network),
        **more,
        **trained(pretraining),
        "licence": licence or None,
    }


def build(architecture: str) -> nn.Module:
    """A network of transformers on the meta device: "BertModel(hidden_size=384)"."""
    kind, options = plugins.parse(architecture)
    maker: Any = getattr(transformers, kind, None) or getattr(transformers.models.whisper.modeling_whisper, kind)
    config = maker.config_class(**options)
    config._attn_implementation = "eager"
    more = {"add_pooling_layer": False} if kind == "ViTModel" else {}
    return on_meta(lambda: maker(config, **more))


def probe_of(network: Any) -> tuple[str, dict[str, Tensor]]:
    """Modality and inputs of a network of transformers."""
    main, config = network.main_input_name, network.config
    if main == "pixel_values":
        return "image", {main: images(224)}
    if main == "input_ids":
        return "text", {main: torch.zeros(1, TOKENS, dtype=torch.long, device="meta")}
    if hasattr(config, "num_mel_bins"):  # spectrograms of a fixed length
        mel = config.num_mel_bins
        shape = (1, config.max_length, mel) if hasattr(config, "max_length") and mel == 128 else (1, mel, 3000)
        return "audio", {main: torch.zeros(*shape, device="meta")}
    return "audio", {main: torch.zeros(1, RATE_HZ, device="meta")}


def counted(network: nn.Module, x: Tensor, trunk: Any) -> Entry:
    """What can be counted on a network of images."""
    entry = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "multiply_adds": multiply_adds(network, x),
        "features": 0,
        "depthwise": depthwise(network),
    }
    with torch.no_grad():
        entry["features"] = trunk(network).eval()(x).shape[1]
    return entry


def depthwise(network: nn.Module) -> bool:
    """Whether most convolutions wider than 1 x 1 work on each channel by itself."""
    wide = [m for m in network.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
    return sum(m.groups == m.in_channels > 1 for m in wide) * 2 > len(wide)


def macs_of(network: nn.Module, inputs: dict[str, Tensor]) -> int:
    """Multiply-adds where inputs go by name."""

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Any:
            return self.network(**{next(iter(inputs)): x})

    return multiply_adds(Named(), next(iter(inputs.values())))


def on_meta(make: Any) -> nn.Module:
    """A network without weights: shapes only."""
    try:
        with torch.device("meta"):
            return make().eval()
    except NotImplementedError:  # it computes with tensors while it is built
        return make().to("meta").eval()


def images(px: int) -> Tensor:
    """One image that is not there."""
    return torch.zeros(1, 3, px, px, device="meta")


def trained(pretraining: str) -> Entry:
    """The pretraining set, and its size where it is certain."""
    return {"trained_on": pretraining, "trained_items": ITEMS.get(pretraining)}


def entries(top1: Mapping[tuple[str, int], float]) -> Iterator[Entry]:
    """All of them, in the order of the lists above."""
    for name in TIMM:
        yield of_timm(name, top1)
    for name in TORCHVISION:
        yield of_torchvision(name)
    for name in HF:
        yield of_transformers(name)


def toml(found: Iterator[Entry]) -> str:
    """Entries as TOML; JSON's strings, numbers and lists are TOML's too."""
    head = "# Written by recipes/catalogue.py, which says where each fact comes from. Do not edit by hand.\n"
    blocks = []
    for entry in found:
        lines = [f"{key} = {json.dumps(value)}" for key, value in entry.items() if value is not None]
        blocks.append("\n".join(["[[backbone]]", *lines]))
        print(entry["spec"], entry["parameters"], entry["multiply_adds"], entry["features"], entry.get("top1"))
    return head + "\n" + "\n\n".join(blocks) + "\n"


def read_top1(path: Path | None) -> dict[tuple[str, int], float]:
    """(name, px) -> percent, from timm's results."""
    if path is None:
        return {}
    with path.open() as file:
        return {(row["model"], int(row["img_size"])): float(row["top1"]) for row in csv.DictReader(file)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, help="results/results-imagenet.csv of timm's repository")
    logging.disable(logging.WARNING)
    TARGET.write_text(toml(entries(read_top1(parser.parse_args().results))))
