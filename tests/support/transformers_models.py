"""Random models of the transformers library, their checkpoints in its layout, and their results as the reference."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import (
    DynamicCache,
    KyutaiSpeechToTextConfig,
    KyutaiSpeechToTextFeatureExtractor,
    KyutaiSpeechToTextForConditionalGeneration,
    MimiConfig,
)

from support.model_speech import speech
from support.moshi_models import Shape, scale_weights, spread_codebooks

Model = KyutaiSpeechToTextForConditionalGeneration


@torch.no_grad()
def transformers_model(shape: Shape) -> Model:
    """Return a random model. The head's row of the initial token is zero, as in converted checkpoints."""
    rng = np.random.default_rng(shape.seed + 3000)
    dimension, heads = int(rng.choice([32, 64])), int(rng.choice([2, 4]))
    codec = MimiConfig(
        num_filters=int(rng.choice([4, 8])),
        hidden_size=dimension,
        codebook_size=int(rng.choice([128, 256])),
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        num_quantizers=shape.codebooks,
        num_hidden_layers=int(rng.integers(1, 4)),
        intermediate_size=4 * dimension,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=dimension // heads,
        upsample_groups=dimension,
        use_cache=True,
    )
    text = int(rng.integers(100, 600))
    card = codec.codebook_size + 1
    config = KyutaiSpeechToTextConfig(
        codebook_vocab_size=card,
        vocab_size=text + 1,
        hidden_size=(hidden := int(rng.choice([64, 128]))),
        num_hidden_layers=int(rng.integers(2, 5)),
        num_attention_heads=4,
        sliding_window=shape.context,
        max_position_embeddings=750,
        ffn_dim=2 * 11 * hidden // 4,
        num_codebooks=shape.codebooks,
        audio_bos_token_id=card - 1,
        audio_pad_token_id=text + 1 + shape.codebooks * card,
        bos_token_id=text,
        pad_token_id=3,
        rope_parameters={"rope_type": "default", "rope_theta": float(rng.choice([10_000.0, 100_000.0]))},
        codec_config=codec,
    )
    model = Model(config).eval()
    scale_weights(model, shape.seed, gain=1.3)
    model.lm_head.weight[text] = 0
    model.model.embed_tokens.embed_tokens.weight[-1] = 0
    _spread(model, shape.seed)
    return model


def _spread(model: Model, seed: int) -> None:
    """Center the codebooks on the codec's output for speech."""
    codec = model.codec_model
    kept: list[Tensor] = []
    original = codec.quantizer.encode

    def encode(embeddings: Tensor, *arguments: int) -> Tensor:
        kept.append(embeddings)
        return original(embeddings, *arguments)

    codec.quantizer.encode = encode
    codec.encode(speech(100, seed=12_345).view(1, 1, -1))
    del codec.quantizer.encode
    for rvq in (
        codec.quantizer.semantic_residual_vector_quantizer,
        codec.quantizer.acoustic_residual_vector_quantizer,
    ):
        codebooks = [layer.codebook for layer in rvq.layers]
        spread_codebooks(codebooks, rvq.input_proj(kept[-1])[0].t(), seed, "embed_sum", "cluster_usage")


def write_transformers(folder: Path, model: Model, *, parts: bool = False) -> None:
    """Write a checkpoint as in the ``-trfs`` repositories, in one file or in parts."""
    model.generation_config.audio_window_size = None
    model.save_pretrained(folder, max_shard_size="100KB" if parts else "5GB")
    extractor = KyutaiSpeechToTextFeatureExtractor(audio_delay_seconds=2.5, audio_silence_prefix_seconds=1.0)
    extractor.save_pretrained(folder)
    pieces = {f"▁w{token}": token for token in range(model.config.vocab_size)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE", "vocab": pieces}}))


@torch.no_grad()
def transformers_codes(model: Model, frames: Tensor) -> Tensor:
    """Return the codes ``[T, K]`` of the whole audio, encoded at once."""
    codes: Tensor = model.codec_model.encode(frames.reshape(1, 1, -1)).audio_codes
    return codes[0].t()


@torch.no_grad()
def transformers_generate(model: Model, frames: Tensor) -> list[int]:
    """Return one token per frame, without the tokens before the first frame that ``generate`` returns."""
    model.generation_config.audio_window_size = None
    count = len(frames)
    padded = torch.cat((frames, torch.zeros(2, frames.shape[1])))  # one token per frame, of which two are skipped
    output = model.generate(input_values=padded.reshape(1, 1, -1), do_sample=False)
    tokens: list[int] = output[0].tolist()
    return tokens[2 : 2 + count]


@torch.no_grad()
def transformers_tokens(model: Model, codes: Tensor) -> list[int]:
    """Return the greedy tokens for ``codes [T, K]``, with the library's sliding-window cache."""
    config = model.config
    cache = DynamicCache(config=config)
    text, tokens = config.bos_token_id, []
    audio = torch.cat((torch.full((1, codes.shape[1]), config.audio_bos_token_id), codes))
    for position, frame in enumerate(audio):
        ids = torch.cat((torch.tensor([text]), frame))[None, None]
        logits = model(input_ids=ids, past_key_values=cache, use_cache=True).logits[0, -1]
        text = int(logits[: config.vocab_size - 1].argmax())
        if position:
            tokens.append(text)
    return tokens
