"""Text in, token arrays out: cleaning, held-back stories kept out of training, chat rendering, tokenizer training.

  python prepare.py --corpus FOLDER --out FOLDER

Reads stories (*.txt, documents separated by a line <|endoftext|>) and dialogues (*.jsonl), and adds tales and small talk that
tales.py and talk.py make; writes tokenizer.json, one NAME.npz (uint16 `tokens` and document `starts`) a source, validation.json (texts) and removed.json (what was dropped and why).
"""
import argparse
import collections
import json
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import tales
import talk

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]  # ids 0..4
BOS, EOS = 1, 2
GRAM = 8  # a paragraph that shares this many words in a row with a validation story, three times over, is a copy
MADE_TALES, TOLD_TALES, MADE_TALKS = 24_000, 5_000, 12_000
PIECE = 12_000  # characters: books are cut into documents of about a story's length


def read_documents(path):
    documents = path.read_text(encoding="utf-8", errors="replace").split("<|endoftext|>\n")
    return [d.strip() for d in documents if d.strip()]


def words(text):
    return re.findall(r"[a-z']+", text.lower())


def grams(text):
    w = words(text)
    return [tuple(w[i: i + GRAM]) for i in range(len(w) - GRAM + 1)]


def drop_copies(documents, held_back, source, removed):
    """Cut from each document every run of paragraphs that copies a held-back story, with what lies between its first and last."""
    kept = []
    for number, document in enumerate(documents):
        paragraphs = document.split("\n")
        hits = [sum(g in held_back for g in grams(p)) for p in paragraphs]
        copies = [i for i, h in enumerate(hits) if h >= 3]
        drop = set(copies)
        for a, b in zip(copies, copies[1:]):
            if b - a <= 6:
                drop.update(range(a, b))
        if drop:
            removed.append({"source": source, "document": number, "paragraphs": sorted(drop), "first": paragraphs[min(drop)][:80],
                            "characters": sum(len(paragraphs[i]) for i in drop)})
        kept.append("\n".join(p for i, p in enumerate(paragraphs) if i not in drop))
    return [d for d in kept if d]


def clean(document):
    """Remove the digitisers' header, headings in capitals, and characters the text's first encoding broke."""
    lines = [line.strip() for line in document.split("\n")]
    lines[0] = re.sub(r"^-{5,}\s*(TRANSLATION BY [A-Z. ]+|Translated by [A-Z][\w. ]+?(?=[A-Z][a-z]+ ))?", "", lines[0]).strip()
    lines = [l for l in lines if re.search(r"[a-z]", l) and not re.match(r"^(Produced by|By |Edited [Bb]y|\[)", l)]
    return re.sub(r"[^\x20-\x7e\n\u00a3\u00b0\u00c0-\u00ff\u0153]", "", "\n".join(lines))


def cut(document):
    pieces, piece, size = [], [], 0
    for paragraph in document.split("\n"):
        piece.append(paragraph)
        size += len(paragraph)
        if size >= PIECE:
            pieces.append("\n".join(piece))
            piece, size = [], 0
    return pieces + (["\n".join(piece)] if piece else [])


def render_chat(messages):
    return "".join(f"<|im_start|>{m['role']}\n{m['content'].strip()}<|im_end|>\n" for m in messages)


def reading_dialogues(path):
    """The questions about one passage become one dialogue: the passage with the first question, then the others."""
    passages = collections.defaultdict(list)
    for line in path.read_text().splitlines():
        q = json.loads(line)
        if q["split"] == "train":
            passages[q["context"]].append((q["question"].strip(), q["answer"].strip()))
    for context, pairs in passages.items():
        messages = []
        for i, (question, answer) in enumerate(pairs):
            answer = answer[:1].upper() + answer[1:] + ("" if answer.endswith((".", "!", "?")) else ".")
            messages += [{"role": "user", "content": f"{context}\n{question}" if i == 0 else question}, {"role": "assistant", "content": answer}]
        yield render_chat(messages)


ASKED = ["Tell me a story about {}.", "Can you tell me a tale about {}?", "I would like to hear a story about {}.", "Please tell me about {}.",
         "Do you know a story about {}?", "Write a short story about {}."]
OPENING = re.compile(r"^(Once upon|Once there|There was once|There once|There (was|were|lived)|In (the )?(old|olden|ancient|far)|Long ago|A long time ago|Many years ago|One day|Once)\b")
CHARACTERS = ("king queen prince princess giant witch fairy dragon wolf fox bear cat dog mouse frog bird horse lion rabbit donkey goose hen cock raven "
              "miller tailor fisherman hunter soldier shepherd merchant woodcutter widow farmer boy girl mermaid troll dwarf ogre goblin magician sultan monkey duck").split()


def tellings(documents, whole, rng):
    """Requests for a story, answered with the opening of one: `about` is the character it names most often. `whole` documents begin a story."""
    for document in documents:
        paragraphs = document.split("\n")
        for i, paragraph in enumerate(paragraphs):
            if not (whole and i == 0 or OPENING.match(paragraph)) or len(paragraph) < 120:
                continue
            text, end = paragraph, i + 1
            while end < len(paragraphs) and len(text) + len(paragraphs[end]) < 1500:
                text, end = text + "\n" + paragraphs[end], end + 1
            counts = collections.Counter(w for w in words(text[:800]) if w in CHARACTERS)
            if len(text) > 2200 or not counts:
                continue
            name = counts.most_common(1)[0][0]
            yield telling(f"{'an' if name[0] in 'aeiou' else 'a'} {name}", text, rng)


def telling(about, text, rng):
    return render_chat([{"role": "user", "content": rng.choice(ASKED).format(about)}, {"role": "assistant", "content": text}])


def dialogues(path):
    return [render_chat(json.loads(line)["messages"]) for line in path.read_text().splitlines()]


def train_tokenizer(texts, vocab):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)])
    return tokenizer


def save_tokens(path, texts, tokenizer):
    tokens, starts = [], []
    for encoding in tokenizer.encode_batch(texts):
        starts.append(len(tokens))
        tokens += encoding.ids + [EOS]
    np.savez(path, tokens=np.array(tokens, np.uint16), starts=np.array(starts + [len(tokens)], np.int64))
    print(f"{path.stem}: {len(texts)} documents, {len(tokens):,} tokens, {sum(len(t.encode()) for t in texts) / len(tokens):.2f} bytes/token")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--vocab", type=int, default=4096)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    validation = read_documents(args.corpus / "fairytaleqa-val.txt")
    held_back, removed = {g for d in validation for g in grams(d)}, []

    sources = {"stories": read_documents(args.corpus / "fairytaleqa-train.txt")}
    for name, file in (("tales", "tales.txt"), ("books", "children-books.txt")):
        documents = drop_copies(read_documents(args.corpus / file), held_back, name, removed)
        sources[name] = [piece for d in documents for piece in cut(clean(d))]
    sources["stories"] = drop_copies(sources["stories"], held_back, "stories", removed)
    sources["reading"] = list(reading_dialogues(args.corpus / "fairytaleqa-questions.jsonl"))
    sources["topical"] = dialogues(args.corpus / "topical-chat.jsonl")
    sources["smalltalk"] = dialogues(args.corpus / "small-talk.jsonl")

    rng = random.Random(0)
    sources["telling"] = [t for name in ("stories", "tales") for t in tellings(sources[name], name == "stories", rng)]
    sources["made"] = [text for _, text in tales.stories(MADE_TALES, seed=1)]
    sources["told"] = [telling(about, text, rng) for about, text in tales.stories(TOLD_TALES, seed=2)]
    sources["talk"] = [render_chat(messages) for messages in talk.dialogues(MADE_TALKS, seed=3)]

    # Tales shape the vocabulary; books and dialogues are sampled so that they do not outweigh them, and what is made is left out.
    path = args.out / "tokenizer.json"
    if not path.exists():  # a model in training must keep its tokenizer
        sample = sources["stories"] * 2 + sources["tales"] + sources["books"][::4] + sources["topical"][::3] + sources["smalltalk"]
        train_tokenizer(sample, args.vocab).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    for name, texts in sources.items():
        save_tokens(args.out / f"{name}.npz", texts, tokenizer)
    (args.out / "validation.json").write_text(json.dumps(validation))
    (args.out / "removed.json").write_text(json.dumps(removed, indent=1))
    size, count = sum(len(d.encode()) for d in validation), sum(len(e.ids) - 1 for e in tokenizer.encode_batch(validation))
    print(f"validation: {len(validation)} stories, {size} bytes, {count} tokens, {size / count:.2f} bytes/token; dropped copies: {removed}")


if __name__ == "__main__":
    main()
