"""Kyutai's own configuration files."""

from __future__ import annotations

from tympan.models.checkpoints.fields import Fields
from tympan.models.config import LMConfig, MimiConfig, ModelConfig, QuantizerConfig, SeanetConfig, TransformerConfig


def gated_hidden(dimension: int, feed_forward: int) -> int:
    """Width of a gated feed-forward: two thirds of the plain one's, but 21/8 of the dimension where that is 4 times it.

    Kyutai's rule; 4.125 times 2048 gives 5632, exactly 4 times would give 5376.
    """
    return 21 * dimension // 8 if feed_forward == 4 * dimension else 2 * feed_forward // 3


def read_kyutai(fields: Fields) -> ModelConfig:
    """Kyutai's own configuration; file names are to be taken before."""
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
    for key, value in _KYUTAI_FIXED.items():
        fields.only(key, *value)
    fields.set_aside("lm_gen_config", "tts_config", "model_id", prefixes=("depformer_",))
    stt = fields.nested("stt_config")
    delay = stt.number("audio_delay_seconds", 0.5)
    prefix = stt.number("audio_silence_prefix_seconds", 0.0)
    stt.finish()
    fields.finish()
    return ModelConfig(lm, MimiConfig(), delay, prefix)


# What our modules implement; keys that moshi reads and that may only have these values.
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
    "text_card_out": (None,),
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
    "fuser": (
        None,
        {},
        {"cross_attention_pos_emb": False, "cross_attention_pos_emb_scale": 1, "sum": [], "prepend": [], "cross": []},
    ),
    "gradient_checkpointing": (False, True),
}


def read_kyutai_mimi(fields: Fields) -> MimiConfig:
    """A codec configuration beside Kyutai's own (``mimi_config_name``); without one the codec is the published one."""
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
    for key, value in _KYUTAI_SEANET_FIXED.items():
        front.only(key, *value)
    front.set_aside("dilation_base")  # of the second and later residual layers, and there is one
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
    for key, value in _KYUTAI_MIDDLE_FIXED.items():
        middle.only(key, *value)
    middle.only("input_dimension", seanet.dimension)
    middle.only("output_dimensions", [seanet.dimension])
    middle.set_aside("layer_scale")  # its first value in training
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
_KYUTAI_MIDDLE_FIXED: dict[str, tuple[object, ...]] = {
    "causal": (True,),
    "conv_layout": (True,),
    "gating": ("none",),
    "norm": ("layer_norm",),
    "positional_embedding": ("rope",),
}
