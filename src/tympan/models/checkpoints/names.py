"""Where each weight of our modules comes from in the checkpoint layouts, as tables.

A row says: our parameter, the tensors it is made of (each with the names it goes by and its shape), and how it is made.
``kyutai_*`` is the layout of Kyutai's own files, ``transformers_*`` the one of the transformers library.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tympan.models.config import LMConfig, MimiConfig

Build = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class Source:
    """One tensor of a checkpoint: the names it may go by, and its shape."""

    names: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """How our parameter ``target`` is made."""

    target: str
    sources: tuple[Source, ...]
    build: Build


def _one(tensors: list[Tensor]) -> Tensor:
    return tensors[0]


def _flat(tensors: list[Tensor]) -> Tensor:
    return tensors[0].reshape(-1)


def _stacked(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors)


def _scaled(tensors: list[Tensor]) -> Tensor:
    """A projection and the layer scale behind it, in one matrix."""
    weight, scale = tensors
    return scale[:, None] * weight


def _convolution(tensors: list[Tensor]) -> Tensor:
    """``[out, in, kernel]`` to ``[out, kernel * in]``."""
    return tensors[0].transpose(1, 2).flatten(1)


def _pointwise(tensors: list[Tensor]) -> Tensor:
    return tensors[0][:, :, 0]


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection for half-split rotation, put back into interleaved pairs."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _joined(tensors: list[Tensor], heads: int) -> Tensor:
    """Separate query, key and value projections of the transformers layout."""
    query, key, value = tensors
    return torch.cat((_interleaved(query, heads), _interleaved(key, heads), value))


def _centroids(tensors: list[Tensor]) -> Tensor:
    """Running sums and counts of training, in pairs, to centroids ``[codebooks, bins, dimension]``."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return torch.stack([total.float() / usage.float().clamp(min=1e-5)[:, None] for total, usage in pairs])


def _half_norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack([(codebook.double().square().sum(dim=-1) / 2).float() for codebook in _centroids(tensors)])


def _reordered(tensors: list[Tensor], text: int, audio: int) -> Tensor:
    """The transformers table (text, audio, one zero row) in our order (the first ``audio`` rows of audio, text)."""
    table = tensors[0]
    return torch.cat((table[text : text + audio], table[:text]))


def _head(tensors: list[Tensor], size: int) -> Tensor:
    """Without the row that stands for the initial token: its logit is constantly zero and must never win."""
    return tensors[0][:size]


def kyutai_lm(config: LMConfig, codebooks: int) -> Iterator[Row]:
    """The language model in Kyutai's own layout; the pause heads are in it where ``config`` has some."""
    dimension, hidden = config.transformer.dimension, config.transformer.hidden
    audio = [Source((f"emb.{k}.weight",), (config.audio_card + 1, dimension)) for k in range(codebooks)]
    text = Source(("text_emb.weight",), (config.text_card + 1, dimension))
    yield Row("embedding", (*audio, text), _stacked)
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"transformer.layers.{i}"
        yield from _kyutai_attention(ours, theirs, dimension)
        for norm in ("norm1", "norm2"):
            yield Row(f"{ours}.{norm}.weight", (Source((f"{theirs}.{norm}.alpha",), (1, 1, dimension)),), _flat)
        for linear, shape in (("linear_in", (2 * hidden, dimension)), ("linear_out", (dimension, hidden))):
            yield Row(
                f"{ours}.feed_forward.{linear}.weight", (Source((f"{theirs}.gating.{linear}.weight",), shape),), _one
            )
    yield Row("out_norm.weight", (Source(("out_norm.alpha",), (1, 1, dimension)),), _flat)
    yield Row("text_linear.weight", (Source(("text_linear.weight",), (config.text_card, dimension)),), _one)
    if config.pause_heads:
        heads = [
            Source((f"extra_heads.{h}.weight",), (config.pause_classes, dimension)) for h in range(config.pause_heads)
        ]
        yield Row("pause_linear.weight", tuple(heads), _stacked)


def _kyutai_attention(ours: str, theirs: str, dimension: int, scale: Source | None = None) -> Iterator[Row]:
    """Published files say ``in_proj_weight``, moshi in memory says ``in_projs.0.weight``."""
    prefix = f"{theirs}.self_attn"
    names_in = (f"{prefix}.in_proj_weight", f"{prefix}.in_proj.weight", f"{prefix}.in_projs.0.weight")
    names_out = (f"{prefix}.out_proj.weight", f"{prefix}.out_projs.0.weight")
    yield Row(f"{ours}.in_proj.weight", (Source(names_in, (3 * dimension, dimension)),), _one)
    out = Source(names_out, (dimension, dimension))
    if scale is None:
        yield Row(f"{ours}.out_proj.weight", (out,), _one)
    else:
        yield Row(f"{ours}.out_proj.weight", (out, scale), _scaled)


def _mimi_convolutions(config: MimiConfig, theirs: str, downsample: str) -> Iterator[Row]:
    """All convolutions; ``theirs`` and ``downsample`` are name patterns for a layer's path."""
    seanet = config.seanet
    convolutions: list[tuple[str, str, tuple[int, int, int]]] = []
    convolutions.append(("first", "0", (seanet.filters, 1, seanet.kernel)))
    for i, stride in enumerate(seanet.strides):
        channels = seanet.filters << i
        narrow, ours = channels // seanet.compress, f"stages.{i}"
        convolutions += [
            (f"{ours}.residual.narrow", f"{3 * i + 1}.block.1", (narrow, channels, seanet.residual_kernel)),
            (f"{ours}.residual.widen", f"{3 * i + 1}.block.3", (channels, narrow, 1)),
            (f"{ours}.down", f"{3 * i + 3}", (2 * channels, channels, 2 * stride)),
        ]
    stages = len(seanet.strides)
    last = (seanet.dimension, seanet.filters << stages, seanet.last_kernel)
    convolutions.append(("last", f"{3 * stages + 2}", last))
    for ours, path, shape in convolutions:
        name = theirs.format(path)
        yield Row(f"seanet.{ours}.weight", (Source((f"{name}.weight",), shape),), _convolution)
        yield Row(f"seanet.{ours}.bias", (Source((f"{name}.bias",), shape[:1]),), _one)
    shape = (seanet.dimension, seanet.dimension, 2 * config.downsample)
    yield Row("downsample.weight", (Source((f"{downsample}.weight",), shape),), _convolution)


def _mimi_quantizer(
    config: MimiConfig, stacks: tuple[tuple[str, str], ...], sums: tuple[str, ...], usages: tuple[str, ...]
) -> Iterator[Row]:
    """Both stacks of codebooks: ``stacks`` are (projection, codebook pattern), the rest is how tensors are called."""
    quantizer = config.quantizer
    counts = (quantizer.semantic, quantizer.codebooks - quantizer.semantic)
    for ours, (projection, codebook), count in zip(("semantic", "acoustic"), stacks, counts, strict=True):
        shape = (quantizer.dimension, config.seanet.dimension, 1)
        yield Row(f"quantizer.{ours}.input_proj.weight", (Source((projection,), shape),), _pointwise)
        sources: list[Source] = []
        for k in range(count):
            prefix = codebook.format(k)
            sources.append(Source(tuple(prefix + name for name in sums), (quantizer.bins, quantizer.dimension)))
            sources.append(Source(tuple(prefix + name for name in usages), (quantizer.bins,)))
        yield Row(f"quantizer.{ours}.centroids", tuple(sources), _centroids)
        yield Row(f"quantizer.{ours}.half_norms", tuple(sources), _half_norms)


def _layer_norms(ours: str, theirs: tuple[str, str], dimension: int) -> Iterator[Row]:
    for norm, name in zip(("norm1", "norm2"), theirs, strict=True):
        for part in ("weight", "bias"):
            yield Row(f"{ours}.{norm}.{part}", (Source((f"{name}.{part}",), (dimension,)),), _one)


def kyutai_mimi(config: MimiConfig) -> Iterator[Row]:
    """The codec's encoder in Kyutai's own layout."""
    dimension, hidden = config.transformer.dimension, config.transformer.hidden
    yield from _mimi_convolutions(config, "encoder.model.{}.conv.conv", "downsample.conv.conv.conv")
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"encoder_transformer.transformer.layers.{i}"
        scales = [Source((f"{theirs}.layer_scale_{n}.scale",), (dimension,)) for n in (1, 2)]
        yield from _kyutai_attention(ours, theirs, dimension, scales[0])
        yield from _layer_norms(ours, (f"{theirs}.norm1", f"{theirs}.norm2"), dimension)
        yield Row(
            f"{ours}.feed_forward.linear_in.weight", (Source((f"{theirs}.linear1.weight",), (hidden, dimension)),), _one
        )
        linear2 = Source((f"{theirs}.linear2.weight",), (dimension, hidden))
        yield Row(f"{ours}.feed_forward.linear_out.weight", (linear2, scales[1]), _scaled)
    stacks = tuple(
        (f"quantizer.{name}.input_proj.weight", f"quantizer.{name}.vq.layers.{{}}._codebook.")
        for name in ("rvq_first", "rvq_rest")
    )
    yield from _mimi_quantizer(
        config, stacks, ("embedding_sum", "embed_sum", "embed_avg"), ("cluster_usage", "cluster_size")
    )


def transformers_lm(config: LMConfig, codebooks: int) -> Iterator[Row]:
    """The language model in the transformers layout. It never has pause heads."""
    dimension, hidden, heads = config.transformer.dimension, config.transformer.hidden, config.transformer.heads
    text, card = config.text_card + 1, config.audio_card + 1
    table = Source(("model.embed_tokens.embed_tokens.weight",), (text + config.codebooks * card + 1, dimension))
    yield Row("embedding", (table,), partial(_reordered, text=text, audio=codebooks * card))
    square = (dimension, dimension)
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"model.layers.{i}"
        projections = [Source((f"{theirs}.self_attn.{p}_proj.linear.weight",), square) for p in "qkv"]
        yield Row(f"{ours}.in_proj.weight", tuple(projections), partial(_joined, heads=heads))
        yield Row(f"{ours}.out_proj.weight", (Source((f"{theirs}.self_attn.o_proj.linear.weight",), square),), _one)
        for norm, name in (("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm")):
            yield Row(f"{ours}.{norm}.weight", (Source((f"{theirs}.{name}.weight",), (dimension,)),), _one)
        for linear, name, shape in (
            ("linear_in", "fc1", (2 * hidden, dimension)),
            ("linear_out", "fc2", (dimension, hidden)),
        ):
            yield Row(f"{ours}.feed_forward.{linear}.weight", (Source((f"{theirs}.mlp.{name}.weight",), shape),), _one)
    yield Row("out_norm.weight", (Source(("model.norm.weight",), (dimension,)),), _one)
    yield Row(
        "text_linear.weight", (Source(("lm_head.weight",), (text, dimension)),), partial(_head, size=config.text_card)
    )


def transformers_mimi(config: MimiConfig) -> Iterator[Row]:
    """The codec's encoder in the transformers layout, inside the same files as the language model."""
    dimension, hidden, heads = config.transformer.dimension, config.transformer.hidden, config.transformer.heads
    codec = "codec_model"
    yield from _mimi_convolutions(config, f"{codec}.encoder.layers.{{}}.conv", f"{codec}.downsample.conv")
    square = (dimension, dimension)
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"{codec}.encoder_transformer.layers.{i}"
        projections = [Source((f"{theirs}.self_attn.{p}_proj.weight",), square) for p in "qkv"]
        yield Row(f"{ours}.in_proj.weight", tuple(projections), partial(_joined, heads=heads))
        scales = [Source((f"{theirs}.{name}_layer_scale.scale",), (dimension,)) for name in ("self_attn", "mlp")]
        yield Row(
            f"{ours}.out_proj.weight", (Source((f"{theirs}.self_attn.o_proj.weight",), square), scales[0]), _scaled
        )
        yield from _layer_norms(ours, (f"{theirs}.input_layernorm", f"{theirs}.post_attention_layernorm"), dimension)
        yield Row(
            f"{ours}.feed_forward.linear_in.weight", (Source((f"{theirs}.mlp.fc1.weight",), (hidden, dimension)),), _one
        )
        fc2 = Source((f"{theirs}.mlp.fc2.weight",), (dimension, hidden))
        yield Row(f"{ours}.feed_forward.linear_out.weight", (fc2, scales[1]), _scaled)
    names = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer")
    stacks = tuple(
        (f"{codec}.quantizer.{name}.input_proj.weight", f"{codec}.quantizer.{name}.layers.{{}}.codebook.")
        for name in names
    )
    yield from _mimi_quantizer(config, stacks, ("embed_sum",), ("cluster_usage",))


# Tensors that an encoder does not need: the decoding half of the codec, and training's bookkeeping.
MIMI_UNUSED = (
    r"decoder\.",
    r"decoder_transformer\.",
    r"upsample\.",
    r"quantizer\..*\.output_proj\.",
    r"quantizer\..*\.(_initialized|initialized|inited)$",
)


def unused_embeddings(codebooks: int, total: int) -> tuple[str, ...]:
    """Kyutai's embedding tables beyond the first ``codebooks``."""
    return tuple(rf"emb\.{k}\.weight$" for k in range(codebooks, total))


# moshi writes this projection even for a model without the part that would use it.
LM_UNUSED = (r"depformer_in\.\d+\.weight$",)
