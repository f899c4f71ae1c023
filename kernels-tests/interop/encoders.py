"""The encoders' part of check.py.

1. What `shaderlm train bert` and `train albert` save: transformers loads it by the class that config.json names, without a
   missing or unexpected weight; `forward` and `backward` agree with torch; AutoTokenizer gives the ids that shaderlm
   does, special tokens included, so that `fill` agrees with torch from the text on. The same for `finetune` and `classify`.
2. What transformers saves (random BERT, DistilBERT and ALBERT for sequence classification, with its own copy of that
   tokenizer): `classify` and `forward` agree with it.
"""

import copy
import json
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from common import GRAD_NMSE, LOGITS_ABS, LOSS_REL, compare_values, nmse, printed, shaderlm
from examples import example

sys.path.append(str(Path(__file__).resolve().parent.parent / "fixtures" / "encoders"))
import checks  # noqa: E402  (these are among the fixtures' scripts)
import random_encoder  # noqa: E402

SENTENCES = [
    "Shall I compare thee to a summer's day?",
    "Thou art more lovely and more temperate.",
    "Rough winds do shake the darling buds of May,",
    "and summer's lease hath all too short a date.",
]
LABELS = ["dark", "light", "neither"]
SPECIAL = ("cls_token", "sep_token", "mask_token", "pad_token", "unk_token")

# Subcommand, objective, kind of tokenizer, further flags, and the class that must be named in config.json.
TRAINED = [
    ("bert", "mlm+nsp", "wordpiece", [], "BertForPreTraining"),
    ("bert", "mlm", "wordpiece", ["--dtype", "f16"], "BertForMaskedLM"),
    ("albert", "mlm+sop", "unigram", ["--embedding-width", 16], "AlbertForPreTraining"),
    ("albert", "mlm", "unigram", ["--embedding-width", 16, "--sharing", "none", "--optimizer", "lamb"], "AlbertForMaskedLM"),
]


def load(table, what, model, beyond=()):
    """The folder as the class that its config.json names reads it, in f32 with eager attention; None if it does not. No
    weight may be missing, and none but those that `beyond` names may be left over."""
    name = json.loads((model / "config.json").read_text())["architectures"][0]
    try:
        net, info = getattr(transformers, name).from_pretrained(
            model, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
        )
    except Exception as error:  # whatever transformers raises is a finding about the folder
        table.row(f"{what}: transformers loads it", False, f"{type(error).__name__}: {error}".splitlines()[0])
        return None
    wrong = {kind: sorted(info[kind]) for kind in ("missing_keys", "mismatched_keys") if info[kind]}
    if set(info["unexpected_keys"]) != set(beyond):
        wrong["unexpected_keys"] = sorted(info["unexpected_keys"])
    size = sum(p.numel() for p in net.parameters())
    detail = f"{name}, {size} parameters" if not wrong else json.dumps(wrong)
    table.row(f"{what}: transformers loads it", not wrong, detail)
    return net.eval()


def load_tokenizer(table, what, model):
    """AutoTokenizer on the folder, which must know all special tokens and put [CLS] and [SEP] around a text."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        ids = tokenizer(SENTENCES[0])["input_ids"]
    except Exception as error:
        table.row(f"{what}: AutoTokenizer", False, f"{type(error).__name__}: {error}".splitlines()[0])
        return None
    vocabulary = json.loads((model / "tokenizer.json").read_text())["added_tokens"]
    by_content = {token["content"]: token["id"] for token in vocabulary}
    found = {name: (getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")) for name in SPECIAL}
    wrong = {name: token for name, token in found.items() if token[0] is None or by_content.get(token[0]) != token[1]}
    table.row(f"{what}: AutoTokenizer, special tokens", not wrong, str(wrong or {n: t[1] for n, t in found.items()}))
    framed = ids[0] == tokenizer.cls_token_id and ids[-1] == tokenizer.sep_token_id
    table.row(f"{what}: AutoTokenizer, [CLS] text [SEP]", framed and len(ids) > 3, f"{ids[:3]} ... {ids[-2:]}")
    return tokenizer


def check_forward(table, binary, what, net, model, work, device):
    """`forward` on a padded batch: every output of the class, by transformers' names, wherever there is text."""
    inputs, _, mask = example(net)
    fed, out = work / "in.safetensors", work / "out.safetensors"
    out.unlink(missing_ok=True)
    save_file(inputs, fed)
    if not shaderlm(table, binary, f"{what}: forward", "forward", "--model", model, "--input", fed, "--output", out,
                    *device):
        return
    with torch.no_grad():
        want = {name: t for name, t in net(**inputs).items() if torch.is_tensor(t)}
    got = load_file(out)
    odd = set(got) ^ set(want)
    table.row(f"{what}: forward: names", not odd, ", ".join(sorted(want)) if not odd else f"missing or extra: {sorted(odd)}")
    for name, value in want.items():
        where = mask if value.shape[: mask.ndim] == mask.shape else None
        compare_values(table, f"{what}: forward: {name}", got, name, value, where)


def check_backward(table, binary, what, net, model, work, device):
    """`backward` on a padded batch: the loss and every gradient, those of shared parameters summed."""
    inputs, labels, _ = example(net)
    fed, out = work / "in.safetensors", work / "out.safetensors"
    out.unlink(missing_ok=True)
    save_file(inputs | labels, fed)
    what = f"{what}: backward"
    if not shaderlm(table, binary, what, "backward", "--model", model, "--input", fed, "--output", out, *device):
        return
    net.zero_grad()
    loss = net(**inputs, **labels).loss
    loss.backward()
    got = load_file(out)
    want = {f"grad.{name}": p.grad for name, p in net.named_parameters()}
    odd = set(got) ^ (set(want) | {"loss"})
    table.row(f"{what}: names", not odd, f"{len(want)} gradients" if not odd else f"missing or extra: {sorted(odd)[:4]}")
    if "loss" in got:
        error = abs(got["loss"].item() / loss.item() - 1)
        table.row(f"{what}: loss", error <= LOSS_REL, f"{got['loss'].item():.6f}, relative error {error:.1e}")
    largest = max(g.norm().item() for g in want.values())
    exact = copy.deepcopy(net).double()
    exact.zero_grad()
    exact(**inputs, **labels).loss.backward()
    zero = checks.vanishing({f"grad.{name}": p.grad for name, p in exact.named_parameters()})
    # (how bad, name, what to print), of which the worst is shown: a row a gradient would be hundreds.
    found = []
    for name in sorted(set(want) & set(got)):
        if got[name].shape != want[name].shape:
            found.append((float("inf"), name, f"{tuple(got[name].shape)}, wanted {tuple(want[name].shape)}"))
        elif name in zero:
            # But for rounding, on both sides.
            size = got[name].norm().item() / largest
            found.append((size / 1e-5, name, f"{size:.1e} of the largest, wanted 0"))
        else:
            error = nmse(got[name], want[name])
            found.append((error / GRAD_NMSE, name, f"NMSE {error:.1e}"))
    bad = [f for f in found if not f[0] <= 1]  # a NaN is bad as well
    worst = max(bad or found, default=(float("inf"), "", "none in common"))
    table.row(f"{what}: gradients", bool(found) and not bad, f"{len(found) - len(bad)} good; worst {worst[1]}: {worst[2]}")


def check_fill(table, binary, what, net, tokenizer, model, device):
    """`fill`, from the text to the probabilities, against tokenizer, model and softmax of Python."""
    mask = tokenizer.mask_token
    text = f"Rough {mask} do shake the buds."
    answer = printed(table, binary, f"{what}: fill", "fill", text, "--model", model, "--top", 3, "--json", *device)
    if answer is None:
        return
    answer = json.loads(answer)
    encoded = tokenizer(text, return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    same = answer["ids"] == ids
    table.row(f"{what}: fill: ids", same, f"{len(ids)} ids" if same else f"{answer['ids']}, wanted {ids}")
    place = ids.index(tokenizer.mask_token_id)
    with torch.no_grad():
        out = net(**encoded)
    logits = out.prediction_logits if "prediction_logits" in out else out.logits
    likely = logits[0, place].softmax(-1)
    found = answer["masks"][0]
    errors = [abs(c["probability"] - likely[c["id"]].item()) for c in found["candidates"]]
    top = likely.topk(3).values
    errors += [abs(c["probability"] - p.item()) for c, p in zip(found["candidates"], top)]
    ok = found["position"] == place and len(found["candidates"]) == 3 and max(errors) <= 1e-6
    table.row(f"{what}: fill: probabilities", ok, f"max |error| {max(errors):.1e}, likeliest {top[0].item():.4f}")


def check_classify(table, binary, what, net, tokenizer, model, device):
    """`classify` of single texts and of pairs against tokenizer, model and softmax of Python."""
    for label, pair in (("texts", None), ("pairs", "It is dark.")):
        more = ["--pair", pair] if pair else []
        answer = printed(
            table, binary, f"{what}: classify {label}", "classify", *SENTENCES, "--model", model, "--json", *more, *device
        )
        if answer is None:
            continue
        worst, wrong = 0.0, []
        for text, line in zip(SENTENCES, answer.splitlines(), strict=True):
            line = json.loads(line)
            encoded = tokenizer(text, pair, return_tensors="pt") if pair else tokenizer(text, return_tensors="pt")
            with torch.no_grad():
                likely = net(**encoded).logits[0].softmax(-1)
            names = net.config.id2label
            worst = max(worst, *(abs(line["probabilities"][names[i]] - p.item()) for i, p in enumerate(likely)))
            if line["label"] != names[likely.argmax().item()]:
                wrong.append(line["label"])
        ok = worst <= LOGITS_ABS and not wrong
        table.row(f"{what}: classify {label}: probabilities", ok, f"max |error| {worst:.1e}{wrong or ''}")


def check_trained(table, binary, work, device):
    """Direction 1: what shaderlm saves. Gives the folders by class."""
    data = work / "sentences.txt"
    data.write_text(("\n".join(SENTENCES) + "\n\n") * 60, encoding="utf-8")
    folders = {}
    for kind, objective, learner, more, architecture in TRAINED:
        tokens, model = work / f"{learner}.json", work / architecture
        what = architecture
        if not tokens.exists() and not shaderlm(
            table, binary, f"{learner}: tokenizer train", "tokenizer", "train", "--data", data, "--kind", learner,
            "--vocab", 110, "--out", tokens,
        ):
            continue
        if not shaderlm(table, binary, f"{what}: train {kind}", "train", kind, "--data", data, "--out", model,
                        "--tokenizer", tokens, "--objective", objective, "--layers", 2, "--heads", 2, "--width", 32,
                        "--context", 32, "--batch", 4, "--steps", 5, "--warmup", 1, "--overwrite", *more, *device):
            continue
        folders[architecture] = model
        net, tokenizer = load(table, what, model), load_tokenizer(table, what, model)
        if net is None or tokenizer is None:
            continue
        table.row(f"{what}: config.json", type(net).__name__ == architecture, type(net).__name__)
        check_forward(table, binary, what, net, model, work, device)
        check_backward(table, binary, what, net, model, work, device)
        check_fill(table, binary, what, net, tokenizer, model, device)
    return folders


def check_finetuned(table, binary, what, base, work, device, *flags):
    """Direction 1, goes on: what `finetune` saves, with its labels."""
    data, model = work / "task.tsv", work / what.replace(" ", "-")
    rows = [f"{text}\t{LABELS[i % 3]}" for i, text in enumerate(SENTENCES * 6)]
    data.write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    if not shaderlm(table, binary, f"{what}: finetune", "finetune", "--model", base, "--task", "classify", "--data", data,
                    "--out", model, "--epochs", 2, "--batch", 4, "--lr", 1e-3, "--overwrite", *flags, *device):
        return
    net, tokenizer = load(table, what, model), load_tokenizer(table, what, model)
    if net is None or tokenizer is None:
        return
    names = [net.config.id2label[i] for i in range(net.config.num_labels)]
    table.row(f"{what}: labels", names == LABELS, str(names))
    check_forward(table, binary, what, net, model, work, device)
    check_backward(table, binary, what, net, model, work, device)
    check_classify(table, binary, what, net, tokenizer, model, device)


def check_saved(table, binary, tokenizer, work, device):
    """Direction 2: what transformers saves."""
    # Without dropout on attention probabilities, which shaderlm does not have; evaluation has none anyway.
    shared = {"vocab_size": len(tokenizer), "max_position_embeddings": 40, "num_labels": 3}
    shared |= {"id2label": dict(enumerate(LABELS)), "label2id": {name: i for i, name in enumerate(LABELS)}}
    wide = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 3, "intermediate_size": 40}
    for kind, cfg in {
        "Bert": transformers.BertConfig(**shared, **wide),
        "DistilBert": transformers.DistilBertConfig(**shared, dim=24, n_layers=3, n_heads=3, hidden_dim=40),
        "Albert": transformers.AlbertConfig(**shared, **wide, embedding_size=10),
    }.items():
        architecture = f"{kind}ForSequenceClassification"
        model, what = work / f"saved-{kind.lower()}", f"saved {architecture}"
        net = random_encoder.model(getattr(transformers, architecture), cfg, seed=11)
        net.save_pretrained(model)
        names = ["input_ids", "attention_mask"] + (["token_type_ids"] if kind != "DistilBert" else [])
        tokenizer.model_input_names = names
        tokenizer.save_pretrained(model)
        check_forward(table, binary, what, net, model, work, device)
        check_backward(table, binary, what, net, model, work, device)
        check_classify(table, binary, what, net, tokenizer, model, device)


def check(table, binary, work, device):
    """Everything about encoders."""
    folders = check_trained(table, binary, work, device)
    base = folders.get("BertForPreTraining")
    if base is None:
        return  # the row that says why has been printed
    check_finetuned(table, binary, "finetuned", base, work, device)
    tokenizer = load_tokenizer(table, "for random models", base)
    if tokenizer is not None:
        check_saved(table, binary, tokenizer, work, device)
