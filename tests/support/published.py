"""The headers of the published checkpoints, byte for byte, made from the names and shapes of their tensors.

The sizes and hashes of the published files are in `tympan.models.checkpoints.published`. A payload of zeros is a hole
in a sparse file.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Shapes = dict[str, tuple[int, ...]]
BYTES = {"BF16": 2, "F32": 4, "I8": 1}


@dataclass(frozen=True)
class Header:
    """A safetensors file without its payload."""

    shapes: Shapes
    dtype: str

    @property
    def data(self) -> bytes:
        """Return the length and the header, as the safetensors library writes them: sorted, compact, padded to 8."""
        fields, offset = {}, 0
        for name in sorted(self.shapes):
            end = offset + math.prod(self.shapes[name]) * BYTES[self.dtype]
            shape = list(self.shapes[name])
            fields[name] = {"dtype": self.dtype, "shape": shape, "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(fields, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text

    @property
    def size(self) -> int:
        """Return the size of the file with its payload."""
        return len(self.data) + sum(math.prod(shape) for shape in self.shapes.values()) * BYTES[self.dtype]

    def write(self, path: Path) -> None:
        """Write the file with a payload of zeros that takes no space."""
        with path.open("wb") as file:
            file.write(self.data)
            file.truncate(self.size)


def lm_shapes(layers: int, text_card: int, heads: int) -> Shapes:
    """Return the tensors of a published language model."""
    shapes: Shapes = {f"emb.{k}.weight": (2049, 2048) for k in range(32)}
    shapes["text_emb.weight"] = (text_card + 1, 2048)
    for i in range(layers):
        layer = f"transformer.layers.{i}"
        shapes[f"{layer}.self_attn.in_proj_weight"] = (6144, 2048)
        shapes[f"{layer}.self_attn.out_proj.weight"] = (2048, 2048)
        shapes[f"{layer}.gating.linear_in.weight"] = (11264, 2048)
        shapes[f"{layer}.gating.linear_out.weight"] = (2048, 5632)
        shapes[f"{layer}.norm1.alpha"] = shapes[f"{layer}.norm2.alpha"] = (1, 1, 2048)
    shapes["out_norm.alpha"] = (1, 1, 2048)
    shapes["text_linear.weight"] = (text_card, 2048)
    return shapes | {f"extra_heads.{h}.weight": (6, 2048) for h in range(heads)}


def mimi_shapes() -> Shapes:
    """Return the tensors of the published codec, its decoder included."""
    shapes: Shapes = {
        "downsample.conv.conv.conv.weight": (512, 512, 4),
        "upsample.convtr.convtr.convtr.weight": (512, 1, 4),
    }

    def convolution(name: str, *shape: int, biases: int | None = None) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, (biases or shape[0],)

    def residual(name: str, channels: int) -> None:
        convolution(f"{name}.block.1.conv.conv", channels // 2, channels, 3)
        convolution(f"{name}.block.3.conv.conv", channels, channels // 2, 1)

    convolution("encoder.model.0.conv.conv", 64, 1, 7)
    convolution("decoder.model.0.conv.conv", 1024, 512, 7)
    for i, stride in enumerate((4, 5, 6, 8)):
        channels = 64 << i
        residual(f"encoder.model.{3 * i + 1}", channels)
        convolution(f"encoder.model.{3 * i + 3}.conv.conv", 2 * channels, channels, 2 * stride)
        up = f"decoder.model.{3 * (3 - i) + 2}.convtr.convtr"
        convolution(up, 2 * channels, channels, 2 * stride, biases=channels)
        residual(f"decoder.model.{3 * (3 - i) + 3}", channels)
    convolution("encoder.model.14.conv.conv", 512, 1024, 3)
    convolution("decoder.model.14.conv.conv", 1, 64, 3)
    for side in ("encoder", "decoder"):
        for i in range(8):
            layer = f"{side}_transformer.transformer.layers.{i}"
            shapes[f"{layer}.self_attn.in_proj_weight"] = (1536, 512)
            shapes[f"{layer}.self_attn.out_proj.weight"] = (512, 512)
            shapes[f"{layer}.linear1.weight"], shapes[f"{layer}.linear2.weight"] = (2048, 512), (512, 2048)
            vectors = "norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"
            for name in (*vectors, "layer_scale_1.scale", "layer_scale_2.scale"):
                shapes[f"{layer}.{name}"] = (512,)
    for stack, count in (("rvq_first", 1), ("rvq_rest", 31)):
        shapes[f"quantizer.{stack}.input_proj.weight"] = (256, 512, 1)
        shapes[f"quantizer.{stack}.output_proj.weight"] = (512, 256, 1)
        for k in range(count):
            codebook = f"quantizer.{stack}.vq.layers.{k}._codebook"
            shapes[f"{codebook}._initialized"] = (1,)
            shapes[f"{codebook}.cluster_usage"] = (2048,)
            shapes[f"{codebook}.embedding_sum"] = (2048, 256)
    return shapes


LM_1B = Header(lm_shapes(layers=16, text_card=8000, heads=4), "BF16")
LM_2_6B = Header(lm_shapes(layers=48, text_card=4000, heads=0), "BF16")
MIMI = Header(mimi_shapes(), "F32")
MIMI_NAME = "mimi-pytorch-e351c8d8@125.safetensors"
HEADERS = {"1b": LM_1B, "2.6b": LM_2_6B}
TOKENIZERS = {"1b": "tokenizer_en_fr_audio_8000.model", "2.6b": "tokenizer_en_audio_4000.model"}


def config(model: str) -> bytes:
    """Return config.json of `1b` or `2.6b` with the published keys and size; `model_id` is made up."""
    is_1b = model == "1b"
    values: dict[str, Any] = {
        "card": 2048,
        "n_q": 32,
        "dep_q": 0,
        "delays": [0] * 33,
        "dim": 2048,
        "text_card": 8000 if is_1b else 4000,
        "existing_text_padding_id": 3,
        "num_heads": 16 if is_1b else 32,
        "num_layers": 16 if is_1b else 48,
        "hidden_scale": 4.125,
        "causal": True,
        "layer_scale": None,
        "context": 750 if is_1b else 375,
        "max_period": 100000.0,
        "gating": "silu",
        "norm": "rms_norm_f32",
        "positional_embedding": "rope",
        "depformer_dim": 1024,
        "depformer_num_heads": 16,
        "depformer_num_layers": 6,
        "depformer_dim_feedforward": None,
        "depformer_multi_linear": True,
        "depformer_pos_emb": "none",
        "depformer_weights_per_step": True,
        "conditioners": {},
        "cross_attention": False,
        **({"extra_heads_num_heads": 4, "extra_heads_dim": 6} if is_1b else {}),
        "model_id": {"sig": "00000000", "epoch": 1000 if is_1b else 100},
        "lm_gen_config": {"temp": 0.0, "temp_text": 0.0, "top_k": 250, "top_k_text": 50},
        "stt_config": {
            "audio_delay_seconds": 0.5 if is_1b else 2.5,
            "audio_silence_prefix_seconds": 0.0 if is_1b else 1.0,
        },
        "model_type": "stt",
        "mimi_name": MIMI_NAME,
        "tokenizer_name": TOKENIZERS[model],
    }
    return json.dumps(values, indent=2).encode()


def write_published(folder: Path, model: str) -> None:
    """Write `1b` or `2.6b` in full size; the tokenizer is empty and the payloads are zeros."""
    (folder / "config.json").write_bytes(config(model))
    (folder / TOKENIZERS[model]).write_bytes(b"")
    HEADERS[model].write(folder / "model.safetensors")
    MIMI.write(folder / MIMI_NAME)
