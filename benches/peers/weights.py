"""Writes a GPT-2 with random weights for the engines of generation.py: the same numbers in every file.

    python3 benches/peers/weights.py FOLDER [--formats f32,f16,q8,q4] [--width 768 --layers 12 --heads 12 ...]

FOLDER gets config.json and model.safetensors (F32, transformers' names), and one GGUF file a format: f32.gguf, f16.gguf, q8.gguf (llama.cpp's
Q8_0) and q4.gguf (Q4_0), whose matrices are stored so, the token table with them, positions and vectors in F32, as llama.cpp's converter
does. Files of the same sizes that are there already are left. Needs numpy, safetensors and gguf.
"""

import argparse
import json
import os
import sys
from types import SimpleNamespace

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type
from safetensors.numpy import save_file

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, f"{HERE}/../../kernels-tests/fixtures/gguf")

from gpt2_file import alphabet, name_of, write

FORMATS = {"f32": Type.F32, "f16": Type.F16, "q8": Type.Q8_0, "q4": Type.Q4_0}
SIZES = {"vocab": 50257, "context": 1024, "width": 768, "layers": 12, "heads": 12}


def parameters(args, seed=0):
    """Parameters by transformers' names. Matrices are N(0, 1 / width), so that every part shows in the logits; nothing is the identity."""
    draw = np.random.default_rng(seed)
    width = args.width
    normal = lambda *shape: draw.standard_normal(shape, dtype=np.float32)
    matrix = lambda rows, columns: normal(rows, columns) * np.float32(width**-0.5)
    vector = lambda size: 0.1 * normal(size)
    found = {"transformer.wte.weight": matrix(args.vocab, width), "transformer.wpe.weight": matrix(args.context, width)}

    def norm(name):
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + 0.2 * normal(width), vector(width)

    for layer in range(args.layers):
        at = f"transformer.h.{layer}"
        norm(f"{at}.ln_1")
        norm(f"{at}.ln_2")
        for name, size, out in [
            ("attn.c_attn", width, 3 * width), ("attn.c_proj", width, width), ("mlp.c_fc", width, 4 * width), ("mlp.c_proj", 4 * width, width),
        ]:
            found[f"{at}.{name}.weight"], found[f"{at}.{name}.bias"] = matrix(size, out), vector(out)
    norm("transformer.ln_f")
    return found


def stored(name, data, kind):
    """What llama.cpp's file has: linear layers [out, in], matrices in `kind`."""
    if data.ndim == 2 and ".h." in name:
        data = np.ascontiguousarray(data.T)
    kind = kind if data.ndim == 2 and "wpe" not in name else Type.F32
    return gguf.quantize(data, kind), kind


def to_file(place, make):
    """`make` writes to a name beside `place`, which gets it when it is whole."""
    make(place + ".part")
    os.replace(place + ".part", place)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--formats", default=",".join(FORMATS))
    for name, value in SIZES.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    formats = args.formats.split(",")
    if unknown := [name for name in formats if name not in FORMATS]:
        raise SystemExit(f"--formats: {unknown[0]} is not one of {', '.join(FORMATS)}")
    cfg = SimpleNamespace(
        vocab_size=args.vocab, n_positions=args.context, n_embd=args.width, n_inner=None, n_layer=args.layers, n_head=args.heads,
        layer_norm_epsilon=1e-5,
    )
    end = args.vocab - 1
    config = {**vars(cfg), "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new"}
    config |= {"tie_word_embeddings": True, "bos_token_id": end, "eos_token_id": end}
    config |= {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    text = json.dumps(config, indent=1) + "\n"
    os.makedirs(args.folder, exist_ok=True)
    known = os.path.join(args.folder, "config.json")
    same = os.path.exists(known) and open(known).read() == text
    wanted = [name for name in ["model.safetensors", *(f"{f}.gguf" for f in formats)]]
    missing = [name for name in wanted if not same or not os.path.exists(os.path.join(args.folder, name))]
    if not missing:
        return
    found = parameters(args)
    # A byte-level vocabulary as it must be to be read; generation is measured by ids.
    letters = alphabet()
    tokens = [*letters, *(f"{letters[i % 94]}{i}" for i in range(256, end - 1)), "Ġt", "<|endoftext|>"][-args.vocab :]
    for name in missing:
        place = os.path.join(args.folder, name)
        print(f"writing {place}", flush=True)
        if name == "model.safetensors":
            to_file(place, lambda path: save_file(found, path, metadata={"format": "pt"}))
            continue
        kind = FORMATS[name.removesuffix(".gguf")]
        tensors = {name_of(name): stored(name, data, kind) for name, data in found.items()}
        to_file(place, lambda path: write(path, cfg, tensors, tokens, ["Ġ t"]))
    with open(known, "w") as file:
        file.write(text)


main()
