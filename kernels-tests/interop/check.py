"""Checks a shaderlm binary against transformers, in both directions: GPT-2 here, encoders in encoders.py,
ELECTRA in electra.py.

    pip install -r requirements.txt && python check.py ../../target/release/shaderlm [--device D] [--keep FOLDER]

1. `shaderlm train gpt2` writes a model; transformers must load it without a missing or unexpected weight, its
   tokenizer must give the text back, and `shaderlm forward` and `backward` must agree with torch on it.
2. `shaderlm forward` and `backward` must agree with torch on the folders of ../fixtures/gpt2 too, which
   transformers wrote (run its make.py first if they are not there).
3. The same two ways for BERT, DistilBERT and ALBERT (see encoders.py) and for ELECTRA (see electra.py).

Prints one row a check. Exit code 1 if any failed, 2 if the check itself could not run.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

import electra
import encoders
from common import GRAD_NMSE, LOSS_REL, Table, compare_values, nmse, shaderlm

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures" / "gpt2"
SAMPLE = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate: \u00e9\u4e16\U0001f600 <|endoftext|>\n"


def check_forward(table, binary, net, model, work, device):
    """`forward` with and without a mask, with I64 and I32 ids, and hidden states."""
    for label, masked, dtype in (("I64 ids", False, torch.int64), ("I32 ids, mask", True, torch.int32)):
        inputs, mask = example(net.config, masked)
        fed, out = work / "in.safetensors", work / "out.safetensors"
        out.unlink(missing_ok=True)
        save_file({name: t.to(dtype) for name, t in inputs.items() if name != "labels"}, fed)
        what = f"{model.name}: forward, {label}"
        if not shaderlm(table, binary, what, "forward", "--model", model, "--input", fed, "--output", out,
                        "--hidden-states", *device):
            continue
        with torch.no_grad():
            want = net(**{n: t for n, t in inputs.items() if n != "labels"}, output_hidden_states=True)
        got = load_file(out)
        compare_values(table, f"{what}: logits", got, "logits", want.logits, mask)
        for n, hidden in enumerate(want.hidden_states):
            compare_values(table, f"{what}: hidden_states.{n}", got, f"hidden_states.{n}", hidden, mask)


def check_backward(table, binary, net, model, work, device):
    """`backward` on a padded batch: the loss and every gradient."""
    inputs, _ = example(net.config, masked=True)
    fed, out = work / "in.safetensors", work / "out.safetensors"
    out.unlink(missing_ok=True)
    save_file(inputs, fed)
    what = f"{model.name}: backward"
    if not shaderlm(table, binary, what, "backward", "--model", model, "--input", fed, "--output", out, *device):
        return
    net.zero_grad()
    loss = net(**inputs).loss
    loss.backward()
    got = load_file(out)
    want = {f"grad.{name}": p.grad for name, p in net.named_parameters()}
    odd = set(got) ^ (set(want) | {"loss"})
    table.row(f"{what}: names", not odd, f"{len(want)} gradients" if not odd else f"missing or extra: {sorted(odd)[:4]}")
    if "loss" in got:
        error = abs(got["loss"].item() / loss.item() - 1)
        table.row(f"{what}: loss", error <= LOSS_REL, f"{got['loss'].item():.6f}, relative error {error:.1e}")
    for name in sorted(set(want) & set(got)):
        if got[name].shape != want[name].shape:
            table.row(f"{what}: {name}", False, f"{tuple(got[name].shape)}, wanted {tuple(want[name].shape)}")
            continue
        error = nmse(got[name], want[name])
        table.row(f"{what}: {name}", error <= GRAD_NMSE, f"NMSE {error:.1e}")  # a NaN fails as well


def example(config, masked):
    """input_ids [3, time], labels, and if `masked` an attention_mask with rows padded on the right; and the mask."""
    draw = torch.Generator().manual_seed(7)
    time = min(19, config.n_positions)
    ids = torch.randint(config.vocab_size, (3, time), generator=draw)
    mask = torch.ones_like(ids)
    if masked:
        mask[1, -3:] = 0
        mask[2, -8:] = 0
    labels = ids.masked_fill(mask == 0, -100)
    labels[0, 4] = -100
    inputs = {"input_ids": ids, "labels": labels} | ({"attention_mask": mask} if masked else {})
    return inputs, mask


def load(table, model):
    """The folder as transformers reads it, in f32 with eager attention; None if it does not."""
    try:
        net, info = AutoModelForCausalLM.from_pretrained(
            model, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # whatever transformers raises is a finding about the folder
        table.row(f"{model.name}: transformers loads it", False, f"{type(error).__name__}: {error}".splitlines()[0])
        return None
    wrong = {kind: sorted(info[kind]) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") if info[kind]}
    size = sum(p.numel() for p in net.parameters())
    table.row(f"{model.name}: transformers loads it", not wrong, f"{size} parameters" if not wrong else json.dumps(wrong))
    return net.eval()


def check_tokenizer(table, model, vocabulary):
    """The saved `bytes` tokenizer through AutoTokenizer: one id a byte, within the model, and the text comes back."""
    what = f"{model.name}: AutoTokenizer"
    text = SAMPLE.replace("<|endoftext|>", "")  # transformers reads it as a special token, shaderlm as text
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    except Exception as error:
        table.row(what, False, f"{type(error).__name__}: {error}".splitlines()[0])
        return
    table.row(f"{what}: text comes back", back == text, f"{len(ids)} ids" if back == text else repr(back[:60]))
    table.row(f"{what}: one id a byte", len(ids) == len(text.encode()), f"{len(ids)} ids, {len(text.encode())} bytes")
    table.row(f"{what}: ids within the vocabulary", max(ids) < vocabulary, f"largest {max(ids)} of {vocabulary}")


def check_trained(table, binary, work, device):
    """Direction 1: what shaderlm saves."""
    data, model = work / "text.txt", work / "trained"
    data.write_text(SAMPLE * 200, encoding="utf-8")
    if not shaderlm(table, binary, "trained: train gpt2", "train", "gpt2", "--data", data, "--out", model,
                    "--tokenizer", "bytes", "--layers", 2, "--heads", 2, "--width", 32, "--context", 32,
                    "--batch", 4, "--steps", 5, *device):
        return
    net = load(table, model)
    if net is None:
        return
    c = net.config
    asked = {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_positions": 32}
    found = {name: getattr(c, name) for name in asked}
    table.row("trained: config.json", found == asked, json.dumps(found))
    check_tokenizer(table, model, c.vocab_size)
    check_forward(table, binary, net, model, work, device)
    check_backward(table, binary, net, model, work, device)


def check_fixtures(table, binary, work, device):
    """Direction 2: what transformers saves."""
    for name in ("tiny", "odd", "bf16", "f16", "sharded", "old"):
        model = FIXTURES / name
        # old/ has mask buffers among its weights, which transformers skips or reports depending on its version.
        net = AutoModelForCausalLM.from_pretrained(model, attn_implementation="eager", dtype=torch.float32).eval()
        check_forward(table, binary, net, model, work, device)
        check_backward(table, binary, net, model, work, device)


def main():
    args = argparse.ArgumentParser(description="Checks a shaderlm binary against transformers.")
    args.add_argument("binary", type=Path, help="path of shaderlm")
    args.add_argument("--device", help="passed on to shaderlm")
    args.add_argument("--keep", type=Path, help="work in this folder and leave it, instead of a temporary one")
    args = args.parse_args()
    binary = args.binary.resolve()
    if not binary.is_file():
        print(f"{args.binary}: no such file; build it with `cargo build --release`", file=sys.stderr)
        return 2
    if not (FIXTURES / "tiny/config.json").is_file():
        print(f"{FIXTURES}: no fixtures there; run make.py", file=sys.stderr)
        return 2
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    device = ["--device", args.device] if args.device else []
    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.keep or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        check_trained(table, binary, work, device)
        check_fixtures(table, binary, work, device)
        encoders.check(table, binary, work, device)
        electra.check(table, binary, work, device)
    print(f"{table.failed} failed" if table.failed else "all passed")
    return 1 if table.failed else 0


if __name__ == "__main__":
    sys.exit(main())
