"""Print what an exported model writes, with the slow reference implementation: stories, then answers over the chat template.

  python sample.py MODEL_FOLDER [--tokens 150] [--temperature 0.8] [--top-p 0.95]
"""
import argparse
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer

sys.path.insert(0, str(Path(__file__).parent / "goldens"))
from reference import DenseMamba  # noqa: E402

STORIES = ["Once upon a time there was a", "In a village by the sea there lived an old", "The king had three daughters, and the youngest",
           "A fox met a hare on the road.", "Long ago, when wishes still came true,"]
QUESTIONS = ["Hello! How are you?", "What is your name?", "Who are you?", "Do you like stories?", "Can you help me?", "Good morning!",
             "Tell me a story about a fox.", "Are you a robot?", "What do you like to do?", "Goodbye!"]


def choose(logits, temperature, top_p, generator):
    values, ids = torch.softmax(logits / temperature, -1).sort(descending=True)
    values = values * (values.cumsum(-1) - values < top_p)
    return ids[torch.multinomial(values, 1, generator=generator)].item()


@torch.no_grad()
def write(model, prompt, stop, args, generator):
    model.reset()
    for token in prompt:
        logits = model.step(token)
    written = []
    while len(written) < args.tokens:
        token = choose(logits, args.temperature, args.top_p, generator)
        if token in stop:
            break
        written.append(token)
        logits = model.step(token)
    return written


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=150)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--top-p", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, tokenizer = DenseMamba(args.model), Tokenizer.from_file(str(args.model / "tokenizer.json"))
    generator = torch.Generator().manual_seed(args.seed)
    for text in STORIES:
        print(f"## {text}\n{text}{tokenizer.decode(write(model, tokenizer.encode(text).ids, {2}, args, generator))}\n")
    for question in QUESTIONS:
        prompt = tokenizer.encode(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").ids
        print(f"> {question}\n{tokenizer.decode(write(model, prompt, {2, 4}, args, generator))}\n")


if __name__ == "__main__":
    main()
