"""Mappings from the tensors of each checkpoint layout to the parameters of the networks.

Each rule gives a parameter, the tensors from which it is made (with their names and shapes), and how it is made.
``kyutai_*`` is the layout of Kyutai's own files, ``transformers_*`` that of the transformers library.
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
    """One tensor of a checkpoint: its possible names, and its shape."""

    names: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Row:
    """A rule: the parameter ``target`` is ``build`` of the tensors ``sources``."""

    target: str
    sources: tuple[Source, ...]
    build: Build


def _one(tensors: list[Tensor]) -> Tensor:
    return tensors[0]


def _flat(tensors: list[Tensor]) -> Tensor:
    return tensors[0].reshape(-1)


def _scaled(tensors: list[Tensor]) -> Tensor:
    """Merge a projection and the layer scale that follows it."""
    weight, scale = tensors
    return scale[:, None] * weight


def _convolution(tensors: list[Tensor]) -> Tensor:
    """Convert ``[out, in, kernel]`` to ``[out, kernel * in]``."""
    return tensors[0].transpose(1, 2).flatten(1)


def _pointwise(tensors: list[Tensor]) -> Tensor:
    return tensors[0][:, :, 0]


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a query or key projection from half-split rotation to interleaved pairs."""
    return weight.view(heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _joined(tensors: list[Tensor], heads: int) -> Tensor:
    """Join the query, key and value projections of the transformers layout."""
    query, key, value = tensors
    return torch.cat((_interleaved(query, heads), _interleaved(key, heads), value))


def _centroids(tensors: list[Tensor]) -> Tensor:
    """Convert pairs of running sums and counts to centroids ``[codebooks, bins, dimension]``."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return torch.stack([total.float() / usage.float().clamp(min=1e-5)[:, None] for total, usage in pairs])


def _half_norms(tensors: list[Tensor]) -> Tensor:
    return torch.stack([(codebook.double().square().sum(dim=-1) / 2).float() for codebook in _centroids(tensors)])


def _reordered(tensors: list[Tensor], text: int, audio: int) -> Tensor:
    """Reorder the transformers table (text, audio, one zero row) to the first ``audio`` rows of audio, then text."""
    table = tensors[0]
    return torch.cat((table[text : text + audio], table[:text]))


def _head(tensors: list[Tensor], size: int) -> Tensor:
    """Drop the row of the initial token, whose logit is always zero and must not be selected."""
    return tensors[0][:size]


def _rule(target: str, name: str, shape: tuple[int, ...], build: Build = _one) -> Row:
    """Return the rule for a parameter that is made from one tensor."""
    return Row(target, (Source((name,), shape),), build)


def kyutai_lm(config: LMConfig) -> Iterator[Row]:
    """Yield the rules of the language model in Kyutai's own layout, including the pause heads if there are any."""
    dimension, hidden = config.transformer.dimension, config.transformer.hidden
    audio = [Source((f"emb.{k}.weight",), (config.audio_card + 1, dimension)) for k in range(config.codebooks)]
    text = Source(("text_emb.weight",), (config.text_card + 1, dimension))
    yield Row("embedding", (*audio, text), torch.cat)
    for i in range(config.transformer.layers):
        layer = f"transformer.layers.{i}"  # the same name in both
        yield from _kyutai_attention(layer, layer, dimension)
        for norm in ("norm1", "norm2"):
            yield _rule(f"{layer}.{norm}.weight", f"{layer}.{norm}.alpha", (1, 1, dimension), _flat)
        for linear, shape in (("linear_in", (2 * hidden, dimension)), ("linear_out", (dimension, hidden))):
            yield _rule(f"{layer}.feed_forward.{linear}.weight", f"{layer}.gating.{linear}.weight", shape)
    yield _rule("out_norm.weight", "out_norm.alpha", (1, 1, dimension), _flat)
    yield _rule("text_linear.weight", "text_linear.weight", (config.text_card, dimension))
    if config.pause_heads:
        shape = (config.pause_classes, dimension)
        heads = [Source((f"extra_heads.{h}.weight",), shape) for h in range(config.pause_heads)]
        yield Row("pause_linear.weight", tuple(heads), torch.cat)


def _kyutai_attention(ours: str, theirs: str, dimension: int, scale: Source | None = None) -> Iterator[Row]:
    """Yield the rules of both projections; moshi names them ``in_projs.0.weight`` in memory, published files differ."""
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
    """Yield the rules of all convolutions; ``theirs`` is a pattern for the path of a layer of SEANet."""
    seanet = config.seanet
    convolutions = [("first", "0", (seanet.filters, 1, seanet.kernel))]
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
        yield _rule(f"seanet.{ours}.weight", f"{name}.weight", shape, _convolution)
        yield _rule(f"seanet.{ours}.bias", f"{name}.bias", shape[:1])
    shape = (seanet.dimension, seanet.dimension, 2 * config.downsample)
    yield _rule("downsample.weight", f"{downsample}.weight", shape, _convolution)


def _mimi_quantizer(
    config: MimiConfig, stacks: tuple[str, str], codebook: str, sums: tuple[str, ...], usages: tuple[str, ...]
) -> Iterator[Row]:
    """Yield the rules of the quantizer.

    Args:
        config: The architecture.
        stacks: Paths of the semantic and the acoustic stack.
        codebook: Pattern for the prefix of a codebook's tensors within a stack.
        sums: Possible names of the running sums.
        usages: Possible names of the counts.
    """
    quantizer = config.quantizer
    counts = (quantizer.semantic, quantizer.codebooks - quantizer.semantic)
    for ours, stack, count in zip(("semantic", "acoustic"), stacks, counts, strict=True):
        shape = (quantizer.dimension, config.seanet.dimension, 1)
        yield _rule(f"quantizer.{ours}.input_proj.weight", f"{stack}.input_proj.weight", shape, _pointwise)
        sources: list[Source] = []
        for k in range(count):
            prefix = f"{stack}.{codebook.format(k)}"
            sources.append(Source(tuple(prefix + name for name in sums), (quantizer.bins, quantizer.dimension)))
            sources.append(Source(tuple(prefix + name for name in usages), (quantizer.bins,)))
        yield Row(f"quantizer.{ours}.centroids", tuple(sources), _centroids)
        yield Row(f"quantizer.{ours}.half_norms", tuple(sources), _half_norms)


def _mimi_layer(
    ours: str, norms: tuple[str, str], linears: tuple[str, str], scale: Source, config: MimiConfig
) -> Iterator[Row]:
    """Yield the rules of the norms and the feed-forward of one layer; ``scale`` is the layer scale of the latter."""
    dimension, hidden = config.transformer.dimension, config.transformer.hidden
    for norm, name in zip(("norm1", "norm2"), norms, strict=True):
        for part in ("weight", "bias"):
            yield _rule(f"{ours}.{norm}.{part}", f"{name}.{part}", (dimension,))
    yield _rule(f"{ours}.feed_forward.linear_in.weight", f"{linears[0]}.weight", (hidden, dimension))
    linear_out = Source((f"{linears[1]}.weight",), (dimension, hidden))
    yield Row(f"{ours}.feed_forward.linear_out.weight", (linear_out, scale), _scaled)


def kyutai_mimi(config: MimiConfig) -> Iterator[Row]:
    """Yield the rules of the codec's encoder in Kyutai's own layout."""
    dimension = config.transformer.dimension
    yield from _mimi_convolutions(config, "encoder.model.{}.conv.conv", "downsample.conv.conv.conv")
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"encoder_transformer.transformer.layers.{i}"
        scales = [Source((f"{theirs}.layer_scale_{n}.scale",), (dimension,)) for n in (1, 2)]
        yield from _kyutai_attention(ours, theirs, dimension, scales[0])
        norms, linears = (f"{theirs}.norm1", f"{theirs}.norm2"), (f"{theirs}.linear1", f"{theirs}.linear2")
        yield from _mimi_layer(ours, norms, linears, scales[1], config)
    sums, usages = ("embedding_sum", "embed_sum", "embed_avg"), ("cluster_usage", "cluster_size")
    stacks = ("quantizer.rvq_first", "quantizer.rvq_rest")
    yield from _mimi_quantizer(config, stacks, "vq.layers.{}._codebook.", sums, usages)


def _transformers_attention(
    ours: str, theirs: str, dimension: int, heads: int, suffix: str, scale: Source | None = None
) -> Iterator[Row]:
    square = (dimension, dimension)
    projections = [Source((f"{theirs}.self_attn.{p}_proj{suffix}",), square) for p in "qkvo"]
    yield Row(f"{ours}.in_proj.weight", tuple(projections[:3]), partial(_joined, heads=heads))
    if scale is None:
        yield Row(f"{ours}.out_proj.weight", (projections[3],), _one)
    else:
        yield Row(f"{ours}.out_proj.weight", (projections[3], scale), _scaled)


def transformers_lm(config: LMConfig) -> Iterator[Row]:
    """Yield the rules of the language model in the transformers layout, which has no pause heads."""
    dimension, hidden, heads = config.transformer.dimension, config.transformer.hidden, config.transformer.heads
    text, card = config.text_card + 1, config.audio_card + 1
    shape = (text + config.codebooks * card + 1, dimension)
    reorder = partial(_reordered, text=text, audio=config.codebooks * card)
    yield _rule("embedding", "model.embed_tokens.embed_tokens.weight", shape, reorder)
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"model.layers.{i}"
        yield from _transformers_attention(ours, theirs, dimension, heads, ".linear.weight")
        for norm, name in (("norm1", "input_layernorm"), ("norm2", "post_attention_layernorm")):
            yield _rule(f"{ours}.{norm}.weight", f"{theirs}.{name}.weight", (dimension,))
        yield _rule(f"{ours}.feed_forward.linear_in.weight", f"{theirs}.mlp.fc1.weight", (2 * hidden, dimension))
        yield _rule(f"{ours}.feed_forward.linear_out.weight", f"{theirs}.mlp.fc2.weight", (dimension, hidden))
    yield _rule("out_norm.weight", "model.norm.weight", (dimension,))
    yield _rule("text_linear.weight", "lm_head.weight", (text, dimension), partial(_head, size=config.text_card))


def transformers_mimi(config: MimiConfig) -> Iterator[Row]:
    """Yield the rules of the codec's encoder in the transformers layout, whose files also hold the language model."""
    dimension, heads = config.transformer.dimension, config.transformer.heads
    codec = "codec_model"
    yield from _mimi_convolutions(config, f"{codec}.encoder.layers.{{}}.conv", f"{codec}.downsample.conv")
    for i in range(config.transformer.layers):
        ours, theirs = f"transformer.layers.{i}", f"{codec}.encoder_transformer.layers.{i}"
        scales = [Source((f"{theirs}.{name}_layer_scale.scale",), (dimension,)) for name in ("self_attn", "mlp")]
        yield from _transformers_attention(ours, theirs, dimension, heads, ".weight", scales[0])
        norms = (f"{theirs}.input_layernorm", f"{theirs}.post_attention_layernorm")
        linears = (f"{theirs}.mlp.fc1", f"{theirs}.mlp.fc2")
        yield from _mimi_layer(ours, norms, linears, scales[1], config)
    semantic, acoustic = (f"{codec}.quantizer.{kind}_residual_vector_quantizer" for kind in ("semantic", "acoustic"))
    yield from _mimi_quantizer(config, (semantic, acoustic), "layers.{}.codebook.", ("embed_sum",), ("cluster_usage",))


# Tensors that an encoder does not need: the decoding half of the codec, and the bookkeeping of the training.
MIMI_UNUSED = (
    r"decoder\.",
    r"decoder_transformer\.",
    r"upsample\.",
    r"quantizer\..*\.output_proj\.",
    r"quantizer\..*\.(_initialized|initialized|inited)$",
)


# moshi saves this projection even for models without the part that uses it.
LM_UNUSED = (r"depformer_in\.\d+\.weight$",)
