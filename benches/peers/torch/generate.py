"""Times transformers' GPT-2 writing text, a JSON line a repetition, for generation.py.

    python3 benches/peers/torch/generate.py [--model FOLDER | --size gpt2-124m] [--device cpu|cuda] [--type f32|f16|bf16] [--static] [--paced]

GPT2LMHeadModel with its dynamic cache; with --static its static cache and, token by token, torch.compile, on a GPU with CUDA graphs
("reduce-overhead"). Greedy: the loop is written here, since that of `generate` costs more. Tokens stay on the device until the last.
Without --model random weights of GPT-2's sizes.
"""

import inspect
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import torch
import transformers
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel, StaticCache

from paced import arguments, generation, prompts

TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SIZES = {"gpt2-124m": (768, 12, 12), "gpt2-355m": (1024, 24, 16), "gpt2-774m": (1280, 36, 20), "gpt2-1.5b": (1600, 48, 25)}


def loaded(args):
    if args.model:
        model = GPT2LMHeadModel.from_pretrained(args.model, dtype=TYPES[args.type])
    else:
        width, layers, heads = SIZES[args.size]
        with torch.device(args.device):
            model = GPT2LMHeadModel(GPT2Config(n_embd=width, n_layer=layers, n_head=heads))
    return model.eval().to(args.device, TYPES[args.type])


def main():
    parser = arguments(__doc__)
    parser.add_argument("--model", help="a folder")
    parser.add_argument("--size", choices=list(SIZES), default="gpt2-124m")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--type", choices=list(TYPES), default="f32")
    parser.add_argument("--static", action="store_true")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    model = loaded(args)
    cuda = args.device == "cuda"
    ids = torch.tensor(prompts(args, model.config.vocab_size), device=args.device)
    length, capacity = args.prompt_tokens, args.prompt_tokens + args.tokens
    # Older versions must be told where in the cache they are.
    told = "cache_position" in inspect.signature(GPT2LMHeadModel.forward).parameters

    def run(tokens, positions, cache):
        more = {"cache_position": positions} if told else {}
        out = model(
            tokens, position_ids=positions[None], past_key_values=cache, use_cache=True, logits_to_keep=1, return_dict=True, **more
        )
        return out.logits[:, -1:].argmax(-1)

    # Older versions make the cache's tensors at once.
    sizes = {"max_batch_size": args.batch, "max_cache_len": capacity, "device": args.device, "dtype": TYPES[args.type]}
    state = {"cache": StaticCache(config=model.config, **sizes) if args.static else None}
    step = torch.compile(run, mode="reduce-overhead" if cuda else "default", fullgraph=True) if args.static else run
    places = torch.arange(capacity, device=args.device)

    def start():
        if args.static:
            state["cache"].reset()
        else:
            state["cache"] = DynamicCache(config=model.config)
        state["at"] = length
        return run(ids, places[:length], state["cache"])

    def advance(tokens):
        at = state["at"]
        state["at"] += 1
        # What CUDA graphs give is overwritten by the next step.
        tokens = step(tokens, places[at : at + 1], state["cache"])
        return tokens.clone() if args.static and cuda else tokens

    where = torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"
    about = {"engine": f"transformers {transformers.__version__}", "torch": torch.__version__, "device": where}
    about |= {"type": args.type, "static": args.static}
    wait = torch.cuda.synchronize if cuda else lambda: None
    with torch.no_grad():
        generation(args, about, start, advance, lambda tokens: tokens.flatten().tolist(), wait, warm_up=3 if args.static else 2)


main()
