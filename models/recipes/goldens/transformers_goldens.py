"""Writes tiny random Mamba, Falcon-Mamba and Mamba-2 checkpoints with the logits that Hugging Face's transformers gives for
them on a CPU: test/fixtures/hf-tiny-mamba, hf-tiny-falcon-mamba, hf-tiny-mamba2 and hf-tiny-mamba2-tied.

  python transformers_goldens.py [NAME …] [--out test/fixtures]        needs torch, transformers, safetensors

transformers 4.46 was used for the first two, 5.24 for the others: before it, Mamba-2's gated norm took all groups together.

Weights are drawn larger than a training run starts from, so that decays, norms and gates all matter in the result. The
logits are those of whole sequences, through the plain PyTorch path: transformers falls back to it without CUDA.
"""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (FalconMambaConfig, FalconMambaForCausalLM, Mamba2Config, Mamba2ForCausalLM, MambaConfig,
                          MambaForCausalLM)

SIZES = dict(vocab_size=48, hidden_size=32, state_size=4, num_hidden_layers=3, conv_kernel=4, time_step_rank=4,
             bos_token_id=1, eos_token_id=2, pad_token_id=0)
SIZES2 = dict(vocab_size=48, hidden_size=32, state_size=16, num_hidden_layers=3, conv_kernel=4, head_dim=8, num_heads=8,
              expand=2, chunk_size=16, bos_token_id=1, eos_token_id=2, pad_token_id=0)
VARIANTS = {
    # Tied, as state-spaces/mamba-*-hf are.
    "hf-tiny-mamba": (MambaForCausalLM, MambaConfig(**SIZES, expand=2, tie_word_embeddings=True)),
    # As tiiuae/falcon-mamba-7b: a head of its own, and an inner width that `expand` contradicts and that wins.
    "hf-tiny-falcon-mamba": (FalconMambaForCausalLM, FalconMambaConfig(
        **SIZES, expand=16, intermediate_size=64, tie_word_embeddings=False, mixer_rms_eps=1e-3)),
    # As Codestral Mamba: several groups, a head of its own.
    "hf-tiny-mamba2": (Mamba2ForCausalLM, Mamba2Config(**SIZES2, n_groups=2, tie_word_embeddings=False)),
    # All that it leaves at its default otherwise.
    "hf-tiny-mamba2-tied": (Mamba2ForCausalLM, Mamba2Config(
        **SIZES2, n_groups=1, tie_word_embeddings=True, use_bias=True, use_conv_bias=False, time_step_limit=(0.05, 0.6))),
}
LENGTHS = {"hf-tiny-mamba": 12, "hf-tiny-falcon-mamba": 12}


def randomize(model, generator):
    """In place. Projections keep the size of what passes through them; the rest is spread around its usual values."""
    normal = lambda like, std: torch.randn(like.shape, generator=generator) * std
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(("norm.weight", "norm_f.weight", "mixer.D")):
                weight.copy_(1 + normal(weight, 0.2))
            elif name.endswith("A_log"):
                weight.add_(normal(weight, 0.2))
            elif name.endswith(("dt_proj.bias", "dt_bias")):
                weight.copy_(normal(weight, 1.0) - 1)
            elif name.endswith("bias"):
                weight.copy_(normal(weight, 0.2))
            elif name.endswith("embeddings.weight"):
                weight.copy_(normal(weight, 0.5))
            else:
                weight.copy_(normal(weight, weight.shape[-1] ** -0.5))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    parser.add_argument("--out", default="test/fixtures")
    args = parser.parse_args()
    for seed, (name, (kind, config)) in enumerate(VARIANTS.items()):
        if args.names and name not in args.names:
            continue
        folder = Path(args.out) / name
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        model = kind(config).eval()
        randomize(model, generator)
        token_ids = torch.randint(config.vocab_size, (2, LENGTHS.get(name, 40)), generator=generator)
        with torch.no_grad():
            logits = model(token_ids, use_cache=False).logits
        tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
        if config.tie_word_embeddings:
            del tensors["lm_head.weight"]
        save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
        config.architectures = [kind.__name__]
        (folder / "config.json").write_text(config.to_json_string())
        sequences = [{"token_ids": ids, "logits": [[round(x, 6) for x in row] for row in rows]}
                     for ids, rows in zip(token_ids.tolist(), logits.tolist())]
        (folder / "expected.json").write_text(json.dumps({
            "about": "transformers on CPU in float32, logits [T,V] of whole sequences", "sequences": sequences}) + "\n")
        print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes; logits up to", logits.abs().max().item())


if __name__ == "__main__":
    main()
