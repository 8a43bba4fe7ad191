"""The README of an exported model: what it is, what it saw, how good it is. Called by export.py."""
import json

CARD = """# {name}

A {architecture} of {parameters:,} parameters: {sizes}. Vocabulary {vocab:,} (byte-level BPE), embeddings tied, chat template included.
Trained from scratch with `models/recipes` on {tokens:.1f} million tokens ({hours:.1f} hours of a shared two-core CPU or the equivalent).

- Validation: {bpb} bits per byte on FairytaleQA's validation stories, the state carried through each story, first token included. They were kept
  out of training, as was the test split.
- Epochs over the sources: {epochs}.
- It writes simple, old-fashioned English stories and answers small talk. It knows nothing, and what it says of the world is not to be relied on.

## Text it was trained on

| source | share of tokens | licence |
|---|---|---|
{sources}
"""
LICENCES = {
    "stories": ("FairytaleQA, training split (stories from Project Gutenberg)", "Apache-2.0"),
    "tales": ("Grimm, Andersen, Aesop, Lang, Baum, Carroll and other tales", "public domain"),
    "books": ("longer books for young readers", "public domain"),
    "reading": ("FairytaleQA's questions on the training stories, as dialogues", "Apache-2.0"),
    "topical": ("Topical-Chat", "CDLA-Sharing-1.0"),
    "smalltalk": ("greetings and small talk with an assistant", "MIT"),
    "telling": ("requests for a story in six wordings, answered with openings of the stories and tales above", "as those"),
    "tiny": ("TinyStories, a sample", "CDLA-Sharing-1.0"),
    "picture": ("picture books of StoryWeaver and the African Storybook", "CC-BY 4.0"),
    "fables": ("TinyFabulist, fables by models under Apache-2.0, MIT and DeepSeek's licence", "MIT"),
    "telling-modern": ("such requests, answered with whole stories of the last three", "as those"),
    "persona": ("Synthetic-Persona-Chat, validation and test splits", "CC-BY 4.0"),
    "campsite": ("CaSiNo, what people say while they share out camping supplies", "CC-BY 4.0"),
    "instructions": ("short instructions with answers (LLMs-from-scratch)", "Apache-2.0"),
    "tasks": ("Schema-Guided Dialogue, a quarter", "CC-BY-SA 4.0"),
    "made": ("tales that tales.py composes", "Apache-2.0"),
    "told": ("requests for such tales", "Apache-2.0"),
    "talk": ("small talk that talk.py composes", "Apache-2.0"),
}


def write(path, name, model, saved, rows):
    """rows: the run's log; the last validation in it is reported."""
    c = model.config
    checks = [r for r in rows if "val_bpb" in r]
    architecture = {"dense_mamba": "DenseMamba", "mamba": "Mamba", "dense_retnet": "DenseRetNet", "retnet": "RetNet"}[saved["arch"]]
    mamba = "mamba" in saved["arch"]
    sizes = f"width {c.hidden}, {c.layers} layers, " + (f"state {c.state}, {c.m} dense links" if mamba else f"{c.heads} heads, {c.m} dense links")
    mix = json.loads(saved["mix"])
    path.write_text(CARD.format(
        name=name, architecture=architecture, parameters=sum(p.numel() for p in model.parameters()), sizes=sizes, vocab=c.vocab,
        tokens=saved["tokens"] / 1e6, hours=saved["seconds"] / 3600,
        bpb=f"{checks[-1]['val_bpb']:.3f} (average of the weights {checks[-1]['val_bpb_average']:.3f}), measured at {checks[-1]['tokens'] / 1e6:.1f}M tokens," if checks else "not measured,",
        epochs=", ".join(f"{n} {e:.1f}" for n, e in (checks[-1]["epochs"] if checks else {}).items()) or "not recorded",
        sources="\n".join(f"| {LICENCES[n][0]} | {share:.0%} | {LICENCES[n][1]} |" for n, share in mix.items())))
