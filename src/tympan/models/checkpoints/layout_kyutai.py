"""Readers of Kyutai's own configuration files."""

from __future__ import annotations

from tympan.models.checkpoints.fields import Fields
from tympan.models.config import LMConfig, MimiConfig, ModelConfig, QuantizerConfig, SeanetConfig, TransformerConfig


def gated_hidden(dimension: int, feed_forward: int) -> int:
    """Return the width of a gated feed-forward for that of a plain one, by Kyutai's rule.

    It is two thirds of the plain width, but 21/8 of ``dimension`` if the plain width is exactly four times that: a
    dimension of 2048 gives 5632 for 4.125 times the dimension, and 5376 for 4 times.
    """
    return 21 * dimension // 8 if feed_forward == 4 * dimension else 2 * feed_forward // 3


def read_kyutai(fields: Fields) -> ModelConfig:
    """Read the configuration of a checkpoint, from which the names of files have been read already.

    Raises:
        ModelError: A key is missing, unknown, or has a value that is not supported.
    """
    dimension = fields.integer("dim")
    transformer = TransformerConfig(
        dimension=dimension,
        layers=fields.integer("num_layers"),
        heads=fields.integer("num_heads"),
        hidden=gated_hidden(dimension, int(fields.number("hidden_scale") * dimension)),
        context=fields.integer("context"),
        max_period=fields.number("max_period", 10_000.0),
    )
    codebooks = fields.integer("n_q")
    lm = LMConfig(
        transformer=transformer,
        codebooks=codebooks,
        audio_card=fields.integer("card"),
        text_card=fields.integer("text_card"),
        pause_heads=fields.integer("extra_heads_num_heads", 0),
        pause_classes=fields.integer("extra_heads_dim", 6),
        padding_token=fields.integer("existing_text_padding_id", 3),
        end_padding_token=fields.integer("existing_text_end_padding_id", 0),
    )
    fields.only("delays", [0] * (codebooks + 1))
    fields.only("dep_q", 0)
    fields.only("text_card_out", None, lm.text_card)
    fuser = fields.nested("fuser")  # without conditions there is nothing to fuse
    fuser.only_each(_KYUTAI_FUSER)
    fuser.finish()
    fields.only_each(_KYUTAI_FIXED)
    fields.ignore("lm_gen_config", "tts_config", "model_id", prefixes=("depformer_",))
    stt = fields.nested("stt_config")
    delay = stt.number("audio_delay_seconds", 0.5)
    prefix = stt.number("audio_silence_prefix_seconds", 0.0)
    stt.ignore_rest(refused_prefix="audio_")  # moshi reads no other key, but one of these would concern the audio
    fields.finish()
    return ModelConfig(lm, MimiConfig(), delay, prefix)


# The values that the networks implement, of keys that moshi reads.
_KYUTAI_FIXED: dict[str, tuple[object, ...]] = {
    "model_type": ("stt",),
    "gating": ("silu",),
    "norm": ("rms_norm_f32",),
    "positional_embedding": ("rope",),
    "causal": (True,),
    "layer_scale": (None,),
    "kv_repeat": (1,),
    "norm_emb": (False,),
    "bias_proj": (False,),
    "quantize": (False,),
    "lora": (False,),
    "lora_name": (None,),
    "lora_rank": (128,),
    "lora_scaling": (2.0,),
    "cross_attention": (False,),
    "demux_second_stream": (False,),
    "demux_second_text_stream": (False,),
    "same_initial": (False, True),
    "conditioners": ({}, None),
    "gradient_checkpointing": (False, True),
}


_KYUTAI_FUSER: dict[str, tuple[object, ...]] = {
    "sum": ([],),
    "prepend": ([],),
    "cross": ([],),
    "cross_attention_pos_emb": (False,),
    "cross_attention_pos_emb_scale": (1,),
}


def read_kyutai_mimi(fields: Fields) -> MimiConfig:
    """Read the configuration of a codec that differs from the published one (``mimi_config_name``).

    Raises:
        ModelError: A key is missing, unknown, or has a value that is not supported.
    """
    fields.only("channels", 1)
    sample_rate = fields.integer("sample_rate")
    frame_rate = fields.number("frame_rate")
    front = fields.nested("seanet")
    seanet = SeanetConfig(
        dimension=front.integer("dimension"),
        filters=front.integer("n_filters"),
        strides=tuple(reversed(front.integers("ratios"))),
        kernel=front.integer("kernel_size"),
        last_kernel=front.integer("last_kernel_size"),
        residual_kernel=front.integer("residual_kernel_size"),
        compress=front.integer("compress"),
    )
    front.only_each(_KYUTAI_SEANET_FIXED)
    front.ignore("dilation_base")  # concerns the second and later residual layers only
    front.finish()
    middle = fields.nested("transformer")
    transformer = TransformerConfig(
        dimension=middle.integer("d_model"),
        layers=middle.integer("num_layers"),
        heads=middle.integer("num_heads"),
        hidden=middle.integer("dim_feedforward"),
        context=middle.integer("context"),
        max_period=middle.number("max_period"),
    )
    middle.only_each(_KYUTAI_TRANSFORMER_FIXED)
    middle.only("input_dimension", seanet.dimension)
    middle.only("output_dimensions", [seanet.dimension])
    middle.ignore("layer_scale")  # an initial value for training
    middle.finish()
    back = fields.nested("quantizer")
    quantizer = QuantizerConfig(back.integer("n_q"), 1, back.integer("bins"), back.integer("dimension"))
    back.only("input_dimension", seanet.dimension)
    back.only("output_dimension", seanet.dimension)
    back.finish()
    fields.finish()
    downsample = round(sample_rate / seanet.hop_samples / frame_rate)
    return MimiConfig(sample_rate, seanet, transformer, quantizer, downsample)


_KYUTAI_SEANET_FIXED: dict[str, tuple[object, ...]] = {
    "channels": (1,),
    "causal": (True,),
    "n_residual_layers": (1,),
    "activation": ("ELU",),
    "disable_norm_outer_blocks": (0,),
    "norm": ("none",),
    "pad_mode": ("constant",),
    "true_skip": (True,),
}
_KYUTAI_TRANSFORMER_FIXED: dict[str, tuple[object, ...]] = {
    "causal": (True,),
    "conv_layout": (True,),
    "gating": ("none",),
    "norm": ("layer_norm",),
    "positional_embedding": ("rope",),
}
