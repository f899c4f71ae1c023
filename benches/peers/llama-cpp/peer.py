"""Times llama.cpp's generation, through llama-cpp-python's bindings, a JSON line a repetition.

    target/peers/llama-cpp/venv/bin/python benches/peers/llama-cpp/peer.py --model FILE.gguf [--device vulkan|cpu] [--paced]

`vulkan` puts all layers and the cache onto the first Vulkan device, a software one too, and refuses to run when llama.cpp says that it did
not. Context, batch and the cache's type are llama.cpp's defaults, except that the context is no longer than what is written. Greedy: the
largest logit, found by numpy, which is faster than llama.cpp's own chain of samplers.
"""

import ctypes
import os
import re
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from paced import arguments, generation, prompts

parser = arguments(__doc__)
parser.add_argument("--model", required=True, metavar="FILE.gguf")
parser.add_argument("--device", choices=["vulkan", "cpu"], default="vulkan")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--flash-attention", choices=["auto", "on", "off"], default="auto")
parser.add_argument("--log", action="store_true", help="llama.cpp's log on standard error")
args = parser.parse_args()
if args.batch != 1:
    parser.error("--batch: one text is timed here")
if args.device == "vulkan":
    # Without it ggml leaves processors out that are called CPU.
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")

import llama_cpp as llama
import numpy as np

LOG, DEBUG = [], 1


@llama.llama_log_callback
def log(level, text, _):
    if level != DEBUG or args.log:
        LOG.append(text.decode(errors="replace"))
    if args.log:
        sys.stderr.write(LOG[-1])


def main():
    llama.llama_log_set(log, ctypes.c_void_p(0))
    llama.llama_backend_init()
    on_device = args.device == "vulkan"
    settings = llama.llama_model_default_params()
    settings.n_gpu_layers = 999 if on_device else 0
    model = llama.llama_model_load_from_file(args.model.encode(), settings)
    if not model:
        raise SystemExit("llama.cpp could not load it: " + "".join(LOG)[-2000:])
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    settings = llama.llama_context_default_params()
    settings.n_ctx = args.prompt_tokens + args.tokens
    settings.n_threads = settings.n_threads_batch = args.threads
    settings.offload_kqv = settings.op_offload = on_device
    settings.flash_attn_type = {"auto": -1, "off": 0, "on": 1}[args.flash_attention]
    context = llama.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit("llama.cpp could not make a context: " + "".join(LOG)[-2000:])
    said = "".join(LOG)
    device = f"cpu, {args.threads} threads"
    if on_device:
        found = re.search(r"using device Vulkan0 \((.*?)\) \(", said)
        layers = re.search(r"offloaded (\d+)/(\d+) layers", said)
        if not found or not layers or layers[1] != layers[2]:
            raise SystemExit("llama.cpp did not put the model onto a Vulkan device: " + said[-2000:])
        device = found[1]
        # What a binding cannot hold goes to the CPU without a word: the head, whose table is a large part of a small model.
        there, whole = re.search(r"Vulkan0 model buffer size = +([\d.]+) MiB", said), os.path.getsize(args.model) / 2**20
        if not there or float(there[1]) < 0.9 * whole:
            device += "; the head on the CPU"
    memory = llama.llama_get_memory(context)
    prompt = prompts(args, vocab)[0]

    def decode(tokens):
        # A name of its own: the batch does not keep it alive.
        ids = (llama.llama_token * len(tokens))(*tokens)
        batch = llama.llama_batch_get_one(ids, len(tokens))
        if code := llama.llama_decode(context, batch):
            raise SystemExit(f"llama_decode gave {code}: " + "".join(LOG)[-2000:])
        return int(np.argmax(np.ctypeslib.as_array(llama.llama_get_logits_ith(context, -1), (vocab,))))

    def start():
        llama.llama_memory_clear(memory, False)
        return decode(prompt)

    about = {"engine": f"llama.cpp of llama-cpp-python {llama.__version__}", "device": device}
    generation(args, about, start, lambda token: decode([token]), lambda token: [token])


main()
