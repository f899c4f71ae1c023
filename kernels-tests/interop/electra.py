"""ELECTRA's part of check.py.

1. What `shaderlm train electra` saves: transformers loads both networks without a missing or unexpected weight, what is tied
   is the same in both files, `forward` and `backward` agree with torch; so do `fill` with the generator and `detect` and
   `embed` with the discriminator, from the text on. The same for what the ablations save, and for `finetune` and `classify`.
2. What transformers saves (random weights, every head, E = H and E != H): `forward` and `backward` agree with it.
"""

import json
import subprocess

import torch
import transformers
from safetensors.torch import load_file

from common import LOGITS_ABS, printed, shaderlm
from encoders import (
    LABELS, SENTENCES, check_backward, check_fill, check_finetuned, check_forward, load, load_tokenizer,
    random_encoder,
)

EMBEDDINGS = "electra.embeddings."
TOKENS = "electra.embeddings.word_embeddings.weight"
# Letters of more than a byte, which move bytes and characters apart, and one that the tokenizer does not know.
ODD = "Shall  I comp\u00e4r\u00e9 thee to a\u4e16 summer's day?"
SHAPE = ["--layers", 2, "--heads", 2, "--width", 32, "--context", 32, "--batch", 4, "--steps", 5, "--warmup", 1]
# Classes in discriminator/ and generator/.
DETECTS = ("ElectraForPreTraining", "ElectraForMaskedLM")
PREDICTS = ("ElectraForMaskedLM", "ElectraForMaskedLM")
ALONE = ("ElectraForMaskedLM", None)
E24 = ["--embedding-width", 24]
# Objective, further flags, classes, and the beginning of the names of what is tied.
TRAINED = [
    ("electra", [*E24, "--generator-fraction", 0.5], DETECTS, EMBEDDINGS),
    ("electra", ["--embedding-width", 32, "--tie", "tokens"], DETECTS, TOKENS),
    ("electra-15", [*E24, "--tie", "none", "--dtype", "f16"], DETECTS, None),
    ("replace-mlm", E24, PREDICTS, EMBEDDINGS),
    ("all-tokens-mlm", E24, PREDICTS, EMBEDDINGS),
    ("mlm", E24, ALONE, None),
]
# The mechanism that copies, which no class of transformers has beside a masked-LM head.
COPYING = {f"copy_predictions.{n}.{k}" for n in ("dense", "dense_prediction") for k in ("weight", "bias")}
LABELLED = {"num_labels": 3, "id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
HEADS = (
    "ElectraForMaskedLM", "ElectraForPreTraining", "ElectraForSequenceClassification", "ElectraForTokenClassification",
    "ElectraForQuestionAnswering", "ElectraForMultipleChoice", "ElectraModel",
)


def check_tied(table, what, folder, tied):
    """Parameters of the same name and shape are the same in both files exactly where their name begins with `tied`."""
    networks = [load_file(folder / network / "model.safetensors") for network in ("generator", "discriminator")]
    both = [n for n in networks[0] if n in networks[1] and networks[0][n].shape == networks[1][n].shape]
    same = {name for name in both if torch.equal(networks[0][name], networks[1][name])}
    wanted = {name for name in networks[1] if tied and name.startswith(tied)}
    odd = same ^ wanted
    detail = f"{len(wanted)} tensors of {len(both)} of the same name" if not odd else str(sorted(odd)[:4])
    table.row(f"{what}: tied", not odd, detail)


def replaced(net, tokenizer, text):
    """Of each token but [CLS] and [SEP]: its id, and transformers' probability that it was replaced."""
    encoded = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        found = net(**encoded).logits[0].sigmoid()
    return encoded["input_ids"][0, 1:-1].tolist(), found[1:-1]


def check_detect(table, binary, what, net, tokenizer, model, device):
    """`detect`, from the text to the probabilities, as JSON and as text, against tokenizer, model and sigmoid of Python."""
    texts = [*SENTENCES, ODD]
    wanted = [replaced(net, tokenizer, text) for text in texts]
    # A threshold that lies between two tokens.
    low, high = torch.cat([p for _, p in wanted]).sort().values.unique()[2:4].tolist()
    threshold = (low + high) / 2
    flags = ["--model", model, "--threshold", threshold, *device]
    answer = printed(table, binary, f"{what}: detect --json", "detect", *texts, "--json", *flags)
    plain = printed(table, binary, f"{what}: detect", "detect", *texts, *flags)
    if answer is None or plain is None:
        return
    worst, wrong, lines = 0.0, [], []
    for text, (ids, likely), line in zip(texts, wanted, answer.splitlines(), strict=True):
        line = json.loads(line)
        tokens = line["tokens"]
        places = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][1:-1]
        raw = text.encode()
        for token, id, p, (start, end) in zip(tokens, ids, likely.tolist(), places, strict=True):
            worst = max(worst, abs(token["probability"] - p))
            good = token["id"] == id and token["token"] == tokenizer.convert_ids_to_tokens(id)
            good &= token["suspect"] == (p >= threshold)
            good &= raw[token["start"]:token["end"]].decode() == token["text"] == text[start:end]
            if not good:
                wrong.append(f"{token}, wanted {id}, {p:.4f}, {text[start:end]!r}")
        if line["marked"].replace("[", "").replace("]", "") != text or line["text"] != text:
            wrong.append(line["marked"])
        lines.append(line["marked"])
        lines += [f"  {token['probability']:.4f}  {token['token']}" for token in tokens]
    table.row(f"{what}: detect: probabilities", worst <= LOGITS_ABS, f"max |error| {worst:.1e}")
    table.row(f"{what}: detect: tokens, places, suspects", not wrong, wrong[0] if wrong else f"threshold {threshold:.4f}")
    same = plain.splitlines() == lines
    table.row(f"{what}: detect: as text", same, f"{len(lines)} lines" if same else plain[:60])


def check_long(table, binary, what, net, tokenizer, model, device):
    """A text of several contexts: each token judged once, in parts of equal length."""
    text = " ".join(SENTENCES * 4)
    answer = printed(table, binary, f"{what}: detect, long", "detect", text, "--json", "--model", model, *device)
    if answer is None:
        return
    tokens = json.loads(answer)["tokens"]
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    room = net.config.max_position_embeddings - 2
    length = -(-len(ids) // -(-len(ids) // room))
    likely = []
    for at in range(0, len(ids), length):
        part = [tokenizer.cls_token_id, *ids[at:at + length], tokenizer.sep_token_id]
        with torch.no_grad():
            likely += net(torch.tensor([part])).logits[0, 1:-1].sigmoid().tolist()
    good = [token["id"] for token in tokens] == ids
    worst = max(abs(token["probability"] - p) for token, p in zip(tokens, likely))
    good &= worst <= LOGITS_ABS
    table.row(f"{what}: detect, long: probabilities", good, f"{len(ids)} tokens, max |error| {worst:.1e}")


def check_embed(table, binary, what, net, tokenizer, model, work, device):
    """`embed` against the mean of the last layer's output."""
    out = work / "vectors.safetensors"
    out.unlink(missing_ok=True)
    if not shaderlm(table, binary, f"{what}: embed", "embed", *SENTENCES, "--model", model, "--output", out, *device):
        return
    want = []
    for text in SENTENCES:
        with torch.no_grad():
            want.append(net.electra(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0))
    worst = (load_file(out)["embeddings"] - torch.stack(want)).abs().max().item()
    table.row(f"{what}: embed: vectors", worst <= LOGITS_ABS, f"max |error| {worst:.1e}")


def check_network(table, binary, what, architecture, model, work, device, beyond=()):
    """One of the two folders. Gives (model, tokenizer), or None if transformers does not load them."""
    net, tokenizer = load(table, what, model, beyond), load_tokenizer(table, what, model)
    if net is None or tokenizer is None:
        return None
    table.row(f"{what}: config.json", type(net).__name__ == architecture, type(net).__name__)
    check_forward(table, binary, what, net, model, work, device)
    check_backward(table, binary, what, net, model, work, device)
    if architecture == "ElectraForMaskedLM":
        check_fill(table, binary, what, net, tokenizer, model, device)
    else:
        check_detect(table, binary, what, net, tokenizer, model, device)
        check_long(table, binary, what, net, tokenizer, model, device)
    check_embed(table, binary, what, net, tokenizer, model, work, device)
    return net, tokenizer


def check_trained(table, binary, work, device):
    """Direction 1: what shaderlm saves. Gives the last discriminator's folder of objective `electra`, and its tokenizer."""
    data, tokens = work / "sentences.txt", work / "electra.json"
    data.write_text(("\n".join(SENTENCES) + "\n\n") * 60, encoding="utf-8")
    if not shaderlm(table, binary, "electra: tokenizer train", "tokenizer", "train", "--data", data, "--kind", "wordpiece",
                    "--vocab", 110, "--out", tokens):
        return None
    kept = None
    for number, (objective, more, architectures, tied) in enumerate(TRAINED):
        folder, what = work / f"electra-{number}", f"{objective} {number}"
        if not shaderlm(table, binary, f"{what}: train electra", "train", "electra", "--data", data, "--out", folder,
                        "--tokenizer", tokens, "--objective", objective, "--overwrite", *SHAPE, *more, *device):
            continue
        for network, architecture in zip(("discriminator", "generator"), architectures):
            model = folder / network
            if architecture is None:
                table.row(f"{what}: no {network}", not model.exists(), str(model.exists()))
                continue
            beyond = COPYING if (objective, network) == ("all-tokens-mlm", "discriminator") else ()
            found = check_network(table, binary, f"{what}, {network}", architecture, model, work, device, beyond)
            if found and architecture == "ElectraForPreTraining" and objective == "electra":
                kept = model, found[1]
        if architectures[1]:
            check_tied(table, what, folder, tied)
    return kept


def refused(table, binary, what, reason, *args):
    """The binary must exit with 1 and one line that holds `reason`."""
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, timeout=600)
    lines = done.stderr.strip().splitlines()
    ok = done.returncode == 1 and len(lines) == 1 and reason in lines[0]
    table.row(f"{what}: refused", ok, f"exit {done.returncode}: {lines[-1] if lines else ''}")


def check_saved(table, binary, tokenizer, work, device):
    """Direction 2: what transformers saves."""
    shared = {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "hidden_size": 24}
    shared |= {"num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
    for width in (24, 10):
        for architecture in HEADS:
            what = f"saved {architecture}, E {'=' if width == 24 else '!='} H"
            model = work / f"saved-{architecture}-{width}"
            named = {} if architecture == "ElectraForQuestionAnswering" else LABELLED  # its two outputs are start and end
            config = transformers.ElectraConfig(**shared, **named, embedding_size=width)
            net = random_encoder.model(getattr(transformers, architecture), config, seed=11)
            net.save_pretrained(model)
            tokenizer.save_pretrained(model)
            check_forward(table, binary, what, net, model, work, device)
            if architecture == "ElectraModel":
                # There is no loss without a head, and no head's weights are made up.
                for command, reason in (("detect", "no head for replaced tokens"), ("fill", "no masked-LM head")):
                    refused(table, binary, f"{what}: {command}", reason, command, "a [MASK]", "--model", model, *device)
                continue
            check_backward(table, binary, what, net, model, work, device)
            if architecture == "ElectraForPreTraining":
                check_detect(table, binary, what, net, tokenizer, model, device)
            if architecture == "ElectraForMaskedLM":
                check_fill(table, binary, what, net, tokenizer, model, device)


def check(table, binary, work, device):
    """Everything about ELECTRA; on the adapter and on the CPU, if no device is asked for."""
    for device in [device] if device else [[], ["--device", "cpu"]]:
        found = check_trained(table, binary, work, device)
        if found is None:
            return  # the row that says why has been printed
        base, tokenizer = found
        check_finetuned(table, binary, "finetuned ELECTRA", base, work, device, "--layer-decay", 0.8)
        check_saved(table, binary, tokenizer, work, device)
