"""Writes reference log-probabilities of a checkpoint for a few prompts, as JSON.

  python make_logprobs.py CHECKPOINT OUT.json [--prompts prompts.txt]

A line of the prompts file is one prompt (with \\n, \\t escaped); the checkpoint's tokenizer.json gives the ids, BOS first.
"""
import argparse
import json
from pathlib import Path

import torch
from reference import DenseMamba
from tokenizers import Tokenizer


def score(model, token_ids, num_top=20):
    model.reset()
    logprobs = torch.log_softmax(model.forward(token_ids), dim=-1)  # row t: the token after position t
    top = logprobs[-1].topk(num_top)
    return {
        "logprobs": [None] + [logprobs[t, token].item() for t, token in enumerate(token_ids[1:])],
        "argmax": logprobs.argmax(-1).tolist(),
        "top": [{"id": i, "logprob": p} for i, p in zip(top.indices.tolist(), top.values.tolist())],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("out")
    parser.add_argument("--prompts", default=Path(__file__).with_name("prompts.txt"))
    args = parser.parse_args()
    model, tokenizer = DenseMamba(args.checkpoint), Tokenizer.from_file(str(Path(args.checkpoint) / "tokenizer.json"))
    prompts = []
    for line in Path(args.prompts).read_text().splitlines():
        text = line.replace("\\n", "\n").replace("\\t", "\t")
        token_ids = tokenizer.encode(text).ids
        assert token_ids[0] == model.config["bos_token_id"], "the tokenizer must put BOS first"
        prompts.append({"text": text, "token_ids": token_ids, **score(model, token_ids)})
        print(len(token_ids), "tokens, mean logprob", sum(prompts[-1]["logprobs"][1:]) / (len(token_ids) - 1))
    Path(args.out).write_text(json.dumps({
        "model": Path(args.checkpoint).resolve().name,
        "about": "float64 PyTorch reference; logprobs[t] = log p(token_ids[t] | those before); argmax[t] and top follow position t and the last",
        "prompts": prompts}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
