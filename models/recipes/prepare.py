"""Text in, token arrays out: cleaning, held-back stories kept out of training, chat rendering, tokenizer training.

  python prepare.py --corpus FOLDER --out FOLDER

Reads stories (*.txt, documents separated by a line <|endoftext|>) and dialogues (*.jsonl, *.jsonl.xz); writes tokenizer.json, one
NAME.npz (uint16 `tokens` and document `starts`) a source, validation.json (texts by split) and removed.json (what was dropped and why).
"""
import argparse
import collections
import json
import lzma
import random
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL = ["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]  # ids 0..4
BOS, EOS = 1, 2
GRAM = 8  # a paragraph that shares this many words in a row with a validation story, three times over, is a copy
TASK_SHARE = 4  # one in so many of the task dialogues: they are one kind of talk
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
              "miller tailor fisherman hunter soldier shepherd merchant woodcutter widow farmer boy girl mermaid troll dwarf ogre goblin magician sultan monkey duck "
              "tiger elephant crocodile turtle tortoise squirrel hedgehog owl swan snake penguin peacock butterfly bee ant spider fish whale shark dolphin sheep "
              "goat cow pig puppy kitten pony deer hare crow eagle parrot rooster flamingo chameleon cheetah zebra giraffe hippo leopard jackal hyena badger otter "
              "beaver robot doll teacher baker sailor pirate knight").split()


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
    text = lzma.open(path, "rt").read() if path.suffix == ".xz" else path.read_text()
    return [render_chat(json.loads(line)["messages"]) for line in text.splitlines()]


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
    parser.add_argument("--vocab", type=int, default=8192)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = args.corpus
    validation = {"fairytales": read_documents(corpus / "fairytaleqa-val.txt"),
                  "stories": [d for name in ("tiny-stories", "picture-books", "fables") for d in read_documents(corpus / f"{name}-val.txt")],
                  "dialogues": dialogues(corpus / "new-dialogues-val.jsonl")}
    held_back, removed = {g for name in ("fairytales", "stories") for d in validation[name] for g in grams(d)}, []

    def documents(name, file):
        return drop_copies(read_documents(corpus / file), held_back, name, removed)

    sources = {"stories": documents("stories", "fairytaleqa-train.txt")}
    for name, file in (("tales", "tales.txt"), ("books", "children-books.txt")):
        sources[name] = [piece for d in documents(name, file) for piece in cut(clean(d))]
    for name, file in (("tiny", "tiny-stories.txt"), ("picture", "picture-books.txt"), ("fables", "fables.txt")):
        sources[name] = documents(name, file)
    sources["reading"] = list(reading_dialogues(corpus / "fairytaleqa-questions.jsonl"))
    for name, file in (("topical", "topical-chat.jsonl"), ("smalltalk", "small-talk.jsonl"), ("persona", "persona-chat.jsonl"),
                       ("campsite", "campsite.jsonl"), ("instructions", "instructions.jsonl")):
        sources[name] = dialogues(corpus / file)
    sources["tasks"] = dialogues(corpus / "assistant-tasks.jsonl.xz")[::TASK_SHARE]

    rng = random.Random(0)
    sources["telling"] = [t for name in ("stories", "tales") for t in tellings(sources[name], name == "stories", rng)]
    sources["telling-modern"] = [t for name in ("tiny", "picture", "fables") for t in tellings(sources[name], True, rng)]

    # Stories shape the vocabulary; books and dialogues are sampled so that they do not outweigh them.
    path = args.out / "tokenizer.json"
    if not path.exists():  # a model in training must keep its tokenizer
        sample = [t for name in ("stories", "tales", "tiny", "picture", "fables", "persona", "smalltalk") for t in sources[name]]
        sample += sources["stories"] + sources["books"][::4] + sources["topical"][::3] + sources["tasks"][::4] + sources["campsite"][::2]
        train_tokenizer(sample, args.vocab).save(str(path))
    tokenizer = Tokenizer.from_file(str(path))
    for name, texts in sources.items():
        save_tokens(args.out / f"{name}.npz", texts, tokenizer)
    (args.out / "validation.json").write_text(json.dumps(validation))
    (args.out / "removed.json").write_text(json.dumps(removed, indent=1))
    for name, texts in validation.items():
        size, count = sum(len(d.encode()) for d in texts), sum(len(e.ids) - 1 for e in tokenizer.encode_batch(texts))
        print(f"validation, {name}: {len(texts)} documents, {size} bytes, {count} tokens, {size / count:.2f} bytes/token")
    print(f"dropped copies: {removed}")


if __name__ == "__main__":
    main()
