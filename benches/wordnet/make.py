#!/usr/bin/env python3
"""Makes a classification data set of WordNet's glosses: which lexicographer file does a definition come from?

    apt-get install wordnet-base
    python3 benches/wordnet/make.py --out target/wordnet [--limit N]

Reads data.noun, data.verb, data.adj and data.adv (format: `man wndb`; names of the files: `man lexnames`) and writes
train.tsv and test.tsv with the columns `text` (the definition, without the quoted examples of use) and `label` (such as
noun.animal; 45 classes). A definition that stands in several files is left out, since no one label is right; one that
stands in one file several times is taken once. The split, 90 to 10, and the order follow from the seed alone.
"""

import argparse
import random
import re
import sys
from collections import Counter
from pathlib import Path

PARTS = ("noun", "verb", "adj", "adv")
# lexnames(5WN): a file's number is its place here.
FILES = """adj.all adj.pert adv.all noun.Tops noun.act noun.animal noun.artifact noun.attribute noun.body noun.cognition
noun.communication noun.event noun.feeling noun.food noun.group noun.location noun.motive noun.object noun.person
noun.phenomenon noun.plant noun.possession noun.process noun.quantity noun.relation noun.shape noun.state noun.substance
noun.time verb.body verb.change verb.cognition verb.communication verb.competition verb.consumption verb.contact
verb.creation verb.emotion verb.motion verb.perception verb.possession verb.social verb.stative verb.weather
adj.ppl""".split()


# An example of use is in quotation marks and follows the definition after a semicolon, or now and then another mark.
EXAMPLE = re.compile(r'\s*[;:,.)]\s*"')


def definition(gloss):
    """The gloss without its examples."""
    found = EXAMPLE.search(gloss)
    return " ".join(gloss[: found.start() if found else len(gloss)].split()).strip(" ;:,")


def synsets(path):
    """(definition, label) of each line: `offset lex_filenum ss_type ... | gloss`. The licence's lines begin with a space."""
    for number, line in enumerate(path.read_text(encoding="latin-1").splitlines(), 1):
        if line.startswith(" "):
            continue
        fields, bar, gloss = line.partition(" | ")
        file = fields.split()[1:2]
        if not bar or not file or not file[0].isdigit() or int(file[0]) >= len(FILES):
            raise ValueError(f"{path}:{number}: no line of a WordNet 3.0 data file")
        text = definition(gloss)
        if text:
            yield text, FILES[int(file[0])]


def write(path, rows):
    """Tabs and line ends cannot occur in a definition, so nothing needs quoting."""
    with path.open("w", encoding="utf-8", newline="\n") as out:
        out.write("text\tlabel\n")
        out.writelines(f"{text}\t{label}\n" for text, label in rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--source", type=Path, default=Path("/usr/share/wordnet"), help="folder with data.noun and so on")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.tsv and test.tsv")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N definitions, before the split")
    parser.add_argument("--seed", type=int, default=1337)
    args = parser.parse_args()
    if args.limit is not None and args.limit < 10:
        parser.error("--limit must be at least 10")

    labels = {}
    try:
        for part in PARTS:
            for text, label in synsets(args.source / f"data.{part}"):
                labels.setdefault(text.lower(), (text, set()))[1].add(label)
    except FileNotFoundError as error:
        print(f"{error.filename}: no such file; apt-get install wordnet-base, or give --source", file=sys.stderr)
        return 1
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    rows = sorted((text, *found) for text, found in labels.values() if len(found) == 1)
    random.Random(args.seed).shuffle(rows)
    rows = rows[: args.limit]
    test = max(1, len(rows) // 10)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "train.tsv", rows[test:])
    write(args.out / "test.tsv", rows[:test])
    counts = Counter(label for _, label in rows)
    name, most = counts.most_common(1)[0]
    share = sum(label == name for _, label in rows[:test]) / test
    ambiguous = sum(len(found) > 1 for _, found in labels.values())
    print(f"{len(rows) - test} in train.tsv, {test} in test.tsv, {len(counts)} classes; {ambiguous} definitions of several "
          f"classes left out; always guessing {name} is right in {share:.1%} of test.tsv")
    return 0


if __name__ == "__main__":
    sys.exit(main())
