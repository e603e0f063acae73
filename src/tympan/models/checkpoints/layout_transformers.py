"""Readers of the configuration files of the transformers library's KyutaiSpeechToText classes."""

from __future__ import annotations

from tympan.models.checkpoints.fields import Fields
from tympan.models.config import LMConfig, MimiConfig, ModelConfig, QuantizerConfig, SeanetConfig, TransformerConfig


def _rope_theta(fields: Fields, default: float) -> float:
    """Read the longest period from ``rope_theta`` (old files) or ``rope_parameters`` (new ones)."""
    if fields.has("rope_theta"):
        fields.ignore("rope_parameters", "rope_scaling")
        return fields.number("rope_theta")
    fields.only("rope_scaling", None)
    rope = fields.nested("rope_parameters")
    rope.only("rope_type", "default")
    theta = rope.number("rope_theta", default)
    rope.finish()
    return theta


def read_transformers(fields: Fields, delay_seconds: float, silence_prefix_seconds: float) -> ModelConfig:
    """Read the configuration of ``KyutaiSpeechToTextForConditionalGeneration``.

    Raises:
        ModelError: A key is missing, unknown, or has a value that is not supported.
    """
    fields.only("model_type", "kyutai_speech_to_text")
    heads = fields.integer("num_attention_heads")
    dimension = fields.integer("hidden_size")
    transformer = TransformerConfig(
        dimension=dimension,
        layers=fields.integer("num_hidden_layers"),
        heads=heads,
        hidden=fields.integer("ffn_dim") // 2,
        context=fields.integer("sliding_window"),
        max_period=_rope_theta(fields, 100_000.0),
    )
    lm = LMConfig(
        transformer=transformer,
        codebooks=fields.integer("num_codebooks"),
        audio_card=fields.integer("codebook_vocab_size") - 1,
        text_card=fields.integer("vocab_size") - 1,
        padding_token=fields.integer("pad_token_id", 3),
    )
    fields.only("num_key_value_heads", heads, None)
    fields.only("head_dim", dimension // heads, None)
    fields.only("hidden_act", "silu")
    fields.only("rms_norm_eps", 1e-8)
    fields.only("audio_bos_token_id", lm.audio_card)
    fields.only("attention_bias", False)
    fields.only("tie_word_embeddings", False)
    # ``bos_token_id`` is 48000 in published files, which is not a text token; the initial token is the last one.
    fields.ignore("max_position_embeddings", "audio_pad_token_id", "bos_token_id", "eos_token_id", "frame_size")
    codec = fields.nested("codec_config")
    mimi = _read_transformers_mimi(codec)
    fields.ignore(*_TRANSFORMERS_OTHER)
    fields.finish()
    return ModelConfig(lm, mimi, delay_seconds, silence_prefix_seconds)


def _read_transformers_mimi(fields: Fields) -> MimiConfig:
    fields.only("model_type", "mimi")
    dimension = fields.integer("hidden_size", 512)
    heads = fields.integer("num_attention_heads", 8)
    seanet = SeanetConfig(
        dimension=dimension,
        filters=fields.integer("num_filters", 64),
        strides=tuple(reversed(fields.integers("upsampling_ratios", [8, 6, 5, 4]))),
        kernel=fields.integer("kernel_size", 7),
        last_kernel=fields.integer("last_kernel_size", 3),
        residual_kernel=fields.integer("residual_kernel_size", 3),
        compress=fields.integer("compress", 2),
    )
    transformer = TransformerConfig(
        dimension=dimension,
        layers=fields.integer("num_hidden_layers", 8),
        heads=heads,
        hidden=fields.integer("intermediate_size", 2048),
        context=fields.integer("sliding_window", 250),
        max_period=_rope_theta(fields, 10_000.0),
    )
    quantizer = QuantizerConfig(
        codebooks=fields.integer("num_quantizers", 32),
        semantic=fields.integer("num_semantic_quantizers", 1),
        bins=fields.integer("codebook_size", 2048),
        dimension=fields.integer("vector_quantization_hidden_dimension", 256),
    )
    fields.only("num_key_value_heads", heads, None)
    fields.only("head_dim", dimension // heads, None)
    fields.only("codebook_dim", quantizer.dimension, None)
    fields.only_each(_TRANSFORMERS_MIMI_FIXED)
    fields.ignore(
        "max_position_embeddings", "upsample_groups", "trim_right_ratio", "dilation_growth_rate", "frame_size"
    )
    fields.ignore("layer_scale_initial_scale", "use_streaming", "tie_word_embeddings", "num_codebooks")
    fields.ignore(*_TRANSFORMERS_OTHER)
    sample_rate = fields.integer("sampling_rate", 24_000)
    fields.finish()
    return MimiConfig(sample_rate, seanet, transformer, quantizer)


_TRANSFORMERS_MIMI_FIXED: dict[str, tuple[object, ...]] = {
    "audio_channels": (1,),
    "num_residual_layers": (1,),
    "use_causal_conv": (True,),
    "pad_mode": ("constant",),
    "use_conv_shortcut": (False,),
    "hidden_act": ("gelu",),
    "norm_eps": (1e-5,),
    "attention_bias": (False,),
    "_frame_rate": (12.5, None),
    "frame_rate": (12.5, None),
    "normalize": (False,),
}

# Keys that versions of the transformers library write into every configuration and that do not concern the networks.
_TRANSFORMERS_OTHER = """
_attn_implementation_autoset _name_or_path add_cross_attention architectures attention_dropout bad_words_ids
begin_suppress_tokens bos_token_id chunk_size_feed_forward cross_attention_hidden_size decoder_start_token_id
diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size eos_token_id
exponential_decay_length_penalty finetuning_task forced_bos_token_id forced_eos_token_id id2label initializer_range
is_decoder is_encoder_decoder label2id length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
num_beams num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix problem_type
pruned_heads remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id
suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p
torch_dtype torchscript transformers_version typical_p use_bfloat16 use_cache
""".split()  # noqa: SIM905 (a list would take a line per key)
