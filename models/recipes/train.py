"""The trainer: python train.py --data FOLDER --run FOLDER [--arch dense_mamba] ...

A run folder holds last.pt (everything needed to go on; replaced atomically), log.jsonl and curve.svg. Started again with the
same command it resumes. The learning rate rises, stays flat for as long as you like, and falls to zero over --cool tokens when
that is given: cool a copy (--from) and the flat run can still go on.
"""
import argparse
import json
import math
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

import architectures
from evaluate import bits_per_byte
from optim import Average, build
from stream import Stream

# Old tales first; run.sh cools on modern stories and dialogues.
MIX = {"stories": 0.12, "tales": 0.28, "books": 0.32, "reading": 0.05, "topical": 0.06, "smalltalk": 0.005, "telling": 0.025,
       "tiny": 0.03, "picture": 0.03, "fables": 0.02, "persona": 0.04, "tasks": 0.02}


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder written by prepare.py")
    add("--run", type=Path, required=True)
    add("--from", dest="source", type=Path, help="start from this checkpoint where the run has none")
    add("--init", type=Path, help="where there is no checkpoint: begin with the weights of this exported model, warming up")
    add("--pack", type=Path, help="only write RUN/last.pt here without optimizers and average, weights in 16 bits, to carry it to another machine")
    add("--arch", default="dense_mamba", choices=list(architectures.NAMES))
    add("--size", default="{}", help="JSON of sizes that differ from the architecture's defaults")
    add("--mix", default=json.dumps(MIX), help="JSON: source -> share of tokens")
    add("--rows", type=int, default=16)
    add("--shards", type=int, default=1 if torch.cuda.is_available() else 4, help="parts of the batch that threads take in turn")
    add("--threads", type=int, default=1 if torch.cuda.is_available() else os.cpu_count())
    add("--steps", type=int, default=256, help="tokens of a row in a batch; states are carried on to the next")
    add("--muon-lr", type=float, default=0.02)
    add("--adam-lr", type=float, default=0.004)
    add("--decay", type=float, default=0.01, help="weight decay, as a share of the learning rate")
    add("--dropout", type=float, default=0, help="of the embedding and of what each layer adds; for runs of many epochs, see README.md")
    add("--warmup", type=int, default=100, help="optimizer steps")
    add("--tokens", type=float, default=math.inf, help="stop after so many")
    add("--minutes", type=float, default=math.inf, help="stop after so many minutes")
    add("--cool", type=float, default=0, help="the last so many of --tokens bring the learning rate to zero")
    add("--save-every", type=float, default=6, help="minutes")
    add("--eval-every", type=float, default=15, help="minutes")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def learning_rate(step, tokens, args):
    """Factor on the peak: warm up, flat, then linear to zero over the last `cool` tokens."""
    cooling = (args.tokens - tokens) / args.cool if args.cool else 1
    return max(0.0, min(1.0, (step + 1) / args.warmup, cooling))


def save(path, content):
    building = path.with_suffix(".new")
    torch.save(content, building)
    os.replace(building, path)


def packed(saved):
    """A quarter of the bytes: a run that begins from this warms up again, and its average starts afresh."""
    left_out = {"optimizers": None, "average": None, "averaged": 0, "states": []}
    return {**saved, **left_out, "model": {name: p.half() for name, p in saved["model"].items()}}


class Workers:
    """Forward and backward over shards of the batch, one thread a core, each thread with its own gradients.

    Threads meet once a step instead of in every matrix product, and a shard goes to whichever is free: on a machine
    that is busy with other work this is worth a factor of two. (Sums of gradients vary in their last bits between runs.)
    """

    def __init__(self, model, create, count):
        self.model, self.create = model, create
        self.pool, self.local, self.replicas = ThreadPoolExecutor(count), threading.local(), []

    def replica(self):
        """This thread's copy: shared weights, its own gradients."""
        if not hasattr(self.local, "model"):
            self.local.model = self.create()
            for mine, shared in zip(self.local.model.parameters(), self.model.parameters()):
                mine.data = shared.data
            self.replicas.append(self.local.model)
        return self.local.model

    def shard(self, inputs, targets, pos, state, weight):
        model = self.replica()
        hidden, state = model(inputs.long(), pos, state)
        loss, _ = model.loss(hidden, targets, torch.full(targets.shape, weight, device=targets.device))
        loss.backward()
        return loss.item(), state

    def step(self, inputs, targets, pos, states):
        """Mean loss; leaves the batch's gradient in the model. states: one per shard, replaced by the new ones."""
        shards = [x.chunk(len(states)) for x in (inputs, targets, pos)]
        results = list(self.pool.map(self.shard, *shards, states, [1 / targets.numel()] * len(states)))
        states[:] = [state for _, state in results]
        for p, *parts in zip(self.model.parameters(), *(r.parameters() for r in self.replicas)):
            p.grad = sum(part.grad for part in parts if part.grad is not None)
            for part in parts:
                part.grad = None
        return sum(loss for loss, _ in results)


def tensors(nested):
    """All tensors in lists and tuples of any depth."""
    return [nested] if isinstance(nested, torch.Tensor) else [t for part in nested or () for t in tensors(part)]


def load_model(path, average=True):
    saved = torch.load(path, map_location="cpu", weights_only=False)
    model = architectures.create(saved["arch"], saved["size"])
    model.load_state_dict(saved["average"] if average else saved["model"], strict=False)
    return model, saved


def main():
    args = parse()
    last = args.run / "last.pt"
    if args.pack:
        return save(args.pack, packed(torch.load(last, map_location="cpu", weights_only=False)))
    torch.set_num_threads(1)  # parallel over shards instead, see Workers
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(args.seed)
    args.run.mkdir(parents=True, exist_ok=True)
    (args.run / "train.pid").write_text(str(os.getpid()))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = json.loads(args.size)

    def create():
        model = architectures.create(args.arch, size).to(device)
        model.drop.p = args.dropout
        return model

    model = create()
    stream = Stream(args.data, json.loads(args.mix), args.rows, args.steps, args.seed)
    optimizers, average = build(model, args.muon_lr, args.adam_lr, args.decay), Average(model)
    workers = Workers(model, create, args.threads)
    states, step, tokens, seconds = [model.zero_state(args.rows // args.shards) for _ in range(args.shards)], 0, 0, 0.0

    source = last if last.exists() else args.source
    if source:
        saved = torch.load(source, map_location=device, weights_only=False)
        assert (saved["arch"], saved["size"]) == (args.arch, size), f"{source} holds {saved['arch']} {saved['size']}"
        model.load_state_dict(saved["model"])
        if saved["optimizers"]:
            for optimizer, content in zip(optimizers, saved["optimizers"]):
                optimizer.load_state_dict({**content, "param_groups": optimizer.state_dict()["param_groups"]})  # rates are this run's
            average.weights, average.count = saved["average"], saved["averaged"]
        else:
            average = Average(model)
        stream.load_state_dict(saved["stream"])
        step, tokens, seconds = saved["step"], saved["tokens"], saved["seconds"]
        fits = [t.shape for t in tensors(saved["states"])] == [t.shape for t in tensors(states)]  # not after a move between CPU and GPU
        states = saved["states"] if fits else states
        print(f"resumed {source} at {tokens:,} tokens", flush=True)
    elif args.init:
        weights = load_file(args.init / "model.safetensors")
        model.load_state_dict({name: weights[name].float() for name in model.state_dict()})
        average = Average(model)
    print(f"{args.arch} {sum(p.numel() for p in model.parameters()):,} parameters, {device}", flush=True)

    tokenizer = Tokenizer.from_file(str(args.data / "tokenizer.json"))
    validation = json.loads((args.data / "validation.json").read_text())
    log = open(args.run / "log.jsonl", "a", buffering=1)

    def checkpoint():
        save(last, {"arch": args.arch, "size": size, "model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                    "average": average.weights, "averaged": average.count, "stream": stream.state_dict(), "states": states,
                    "rows": args.rows, "step": step, "tokens": tokens, "seconds": seconds, "warm": warm, "mix": args.mix})

    def evaluate():
        raw = bits_per_byte(model, validation["fairytales"], tokenizer, args.threads)
        average.swap(model)
        averaged = {name: round(bits_per_byte(model, texts, tokenizer, args.threads), 4) for name, texts in validation.items()}
        average.swap(model)
        log.write(json.dumps({"step": step, "tokens": tokens, "seconds": round(seconds), "val_bpb": raw, "val_bpb_average": averaged["fairytales"],
                              "val_bpb_by_split": averaged, "epochs": stream.epochs()}) + "\n")
        print(f"\nvalidation {raw:.4f} bits per byte, averaged weights {averaged}", flush=True)

    stop = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.append(True))  # finish the step, save, end
    warm = saved.get("warm", step) if source and saved["optimizers"] else 0  # steps the optimizers have seen
    started = saved_at = evaluated_at = time.time()
    start_tokens, smooth = tokens, None
    while not stop and tokens < args.tokens and time.time() - started < args.minutes * 60:
        begin = time.time()
        factor = learning_rate(warm, tokens, args)
        inputs, targets, pos = (x.to(device) for x in stream.batch())
        nats = workers.step(inputs, targets, pos, states)
        if not all(torch.isfinite(p.grad).all() for p in model.parameters()):  # nothing spoilt is ever saved
            raise SystemExit(f"loss {nats} with a gradient that is not finite after {tokens:,} tokens: resume with a lower learning rate")
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step(workers.pool)
        average.update(model)
        warm, step, tokens = warm + 1, step + 1, tokens + targets.numel()
        seconds += time.time() - begin
        smooth = nats if smooth is None else 0.98 * smooth + 0.02 * nats
        if step % 10 == 0:
            rate = (tokens - start_tokens) / (time.time() - started)
            left = min((args.tokens - tokens) / rate / 60, args.minutes - (time.time() - started) / 60)
            print(f"step {step} tokens {tokens / 1e6:.2f}M loss {nats:.3f} ({smooth:.3f}) lr x{factor:.2f} {rate:.0f} tokens/s {left:.0f} min left", flush=True)
            log.write(json.dumps({"step": step, "tokens": tokens, "seconds": round(seconds), "loss": round(nats, 4), "lr": factor * args.muon_lr}) + "\n")
        if time.time() - saved_at > args.save_every * 60:
            checkpoint()
            saved_at = time.time()
        if time.time() - evaluated_at > args.eval_every * 60:
            evaluate()
            evaluated_at = time.time()
    checkpoint()
    if not stop:
        evaluate()


if __name__ == "__main__":
    main()
