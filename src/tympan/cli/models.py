"""`tympan models`: list the models that have a name; with names, describe these from their configuration."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from tympan.config import ModelSettings
from tympan.engine.catalogue import CATALOGUE, state_of
from tympan.errors import missing_package

if TYPE_CHECKING:
    from tympan.models.checkpoints.checkpoint import Description

MIB, GIB = 2**20, 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="Repository, folder, or random:1b|2.6b|tiny to describe; without a name, the models are listed.",
    )
    parser.add_argument(
        "--dtype",
        choices=["bf16", "f16", "f32"],
        default="bf16",
        help="Data type (default: %(default)s).",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object per model.")


def run(arguments: argparse.Namespace) -> int:
    if not arguments.names:
        _print_list(as_json=arguments.json)
        return 0
    try:
        from tympan.engine.kyutai.placement import FLOATS
        from tympan.models.checkpoints.checkpoint import describe
        from tympan.models.checkpoints.load import open_checkpoint
    except ModuleNotFoundError as error:
        raise missing_package("this command", error.name, "torch") from None
    for name in arguments.names:
        dtype = FLOATS[arguments.dtype]
        description = describe(open_checkpoint(name), dtype=dtype)
        if arguments.json:
            print(json.dumps({**asdict(description), "stream_bytes": description.stream_bytes}))
        else:
            print(_summary(description, arguments.dtype))
    return 0


def _print_list(*, as_json: bool) -> None:
    default = ModelSettings().model
    states = {entry.name: state_of(entry) for entry in CATALOGUE}
    if as_json:
        for entry in CATALOGUE:
            print(json.dumps({"name": entry.name, "description": entry.text, "state": states[entry.name]}))
        return
    width = max(len(name) for name in states)
    for entry in CATALOGUE:
        note = " (default)" if entry.name == default else ""
        print(f"{entry.name:<{width}}  {entry.text}{note}: {states[entry.name]}")
    print(
        "\n--model takes these names, a folder, or org/name[@revision] on the hub.\n"
        "`tympan models NAME` describes a model of Kyutai's, and `tympan pull NAME` downloads it."
    )


def _summary(model: Description, dtype: str) -> str:
    heads = f"{model.pause_heads} pause heads" if model.pause_heads else "no pause heads (turns from energy)"
    prefix = f", {model.silence_prefix_seconds:g} s of silence before a stream" if model.silence_prefix_seconds else ""
    weights = model.lm_bytes + model.mimi_bytes
    stream = f"{model.lm_stream_bytes / MIB:.2f} MiB cache and {model.mimi_stream_bytes / MIB:.2f} MiB codec"
    return "\n".join(
        [
            f"{model.name} ({model.layout} layout)",
            f"  parameters   {model.parameters / 1e6:,.1f} M, with the codec's encoder",
            f"  weights      {weights / GIB:.2f} GiB as {dtype}, the codec as f32",
            f"  per stream   {stream}",
            f"  context      {model.context_seconds:.0f} s",
            f"  delay        {model.delay_seconds:g} s{prefix}",
            f"  codebooks    {model.codebooks}",
            f"  pauses       {heads}",
        ]
    )
