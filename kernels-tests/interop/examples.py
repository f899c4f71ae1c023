"""Random inputs and labels for any class of encoder."""

import torch

CHOICES = 2


def example(net):
    """(inputs, labels, mask): three rows with padding on the right and two segments, and labels for the class's loss.

    There are no labels for a base model. A choice has two texts a row, `[3, choices, time]`. No id is 0, `[PAD]`: torch
    gives that row of the embeddings no gradient from the lookup.
    """
    config, name = net.config, type(net).__name__
    draw = torch.Generator().manual_seed(7)
    time = min(19, config.max_position_embeddings)
    shape = (3, CHOICES, time) if name.endswith("ForMultipleChoice") else (3, time)
    ids = torch.randint(1, config.vocab_size, shape, generator=draw)
    mask = torch.ones_like(ids)
    mask[1, ..., -3:] = 0
    mask[2, ..., -8:] = 0
    inputs = {"input_ids": ids, "attention_mask": mask}
    if config.model_type != "distilbert":
        inputs["token_type_ids"] = (torch.arange(time) >= 6).long().expand(shape).contiguous()
    return inputs, labels(config, name, ids, mask, draw), mask


def labels(config, name, ids, mask, draw):
    """By transformers' names."""
    if name.endswith("ForSequenceClassification"):
        return {"labels": torch.tensor([2, 0, 1])}
    if name.endswith("ForMultipleChoice"):
        return {"labels": torch.tensor([1, 0, 1])}
    if name.endswith("ForQuestionAnswering"):
        return {"start_positions": torch.tensor([2, 0, 5]), "end_positions": torch.tensor([4, 0, 9])}
    if name.endswith("Model"):
        return {}
    hidden = (torch.rand(ids.shape, generator=draw) < 0.6) | (mask == 0)
    if name.endswith("ForTokenClassification"):
        return {"labels": (ids % config.num_labels).masked_fill(hidden, -100)}
    if name == "ElectraForPreTraining":
        return {"labels": (torch.rand(ids.shape, generator=draw) < 0.3).long()}  # on padding too, where they do not count
    found = {"labels": ids.masked_fill(hidden, -100)}
    if name.endswith("ForPreTraining"):
        pair = "sentence_order_label" if config.model_type == "albert" else "next_sentence_label"
        found[pair] = torch.tensor([1, 0, 1])
    return found
