"""Writes tiny random checkpoints with the logits and states they must give: test/fixtures/torch-tiny-*.

The weights are drawn from a fixed seed, large enough that gates, decays and dense links all matter in the result.
"""
import argparse
import json
from pathlib import Path

import torch
from reference import DenseMamba
from safetensors.torch import save_file

D, E, N, R, K, VOCAB, LAYERS = 16, 32, 4, 2, 4, 48, 3
VARIANTS = {  # folder -> (m, one gate shared by all links)
    "torch-tiny-densemamba": (2, False),
    "torch-tiny-mamba": (0, False),
    "torch-tiny-shared-gate": (2, True),
}


def random_weights(m, shared_gate, generator):
    normal = lambda *shape, std=1.0: torch.randn(*shape, generator=generator) * std
    weights = {"backbone.embeddings.weight": normal(VOCAB, D), "lm_head.weight": normal(VOCAB, D, std=0.5),
               "backbone.norm_f.weight": 1 + normal(D, std=0.1)}
    for l in range(LAYERS):
        weights[f"backbone.layers.{l}.norm.weight"] = 1 + normal(D, std=0.1)
        mixer = {
            "A_log": torch.log(torch.arange(1.0, N + 1)).repeat(E, 1) + normal(E, N, std=0.1),
            "D": 1 + normal(E, std=0.2),
            "conv1d.weight": normal(E, 1, K, std=0.5), "conv1d.bias": normal(E, std=0.2),
            "in_proj.weight": normal(2 * E, D, std=D ** -0.5), "x_proj.weight": normal(R + 2 * N, E, std=2 * E ** -0.5),
            "dt_proj.weight": normal(E, R, std=0.5), "dt_proj.bias": normal(E, std=1) - 1,
            "out_proj.weight": normal(D, E, std=E ** -0.5),
        }
        links = min(m, l)
        if links:
            gates = 1 if shared_gate else links
            mixer["select.fc1.weight"] = normal(8, D, std=1.5 * D ** -0.5)
            mixer["select.fc2.weight"] = normal(gates * E, 8, std=1.0)
        weights.update({f"backbone.layers.{l}.mixer.{name}": tensor for name, tensor in mixer.items()})
    return {name: tensor.float().contiguous() for name, tensor in weights.items()}


def config(m):
    return {"architectures": ["DenseMambaForCausalLM"], "model_type": "dense_mamba", "hidden_size": D,
            "num_hidden_layers": LAYERS, "state_size": N, "conv_kernel": K, "expand": E // D, "time_step_rank": R,
            "use_bias": False, "use_conv_bias": True, "hidden_act": "silu", "layer_norm_epsilon": 1e-5,
            "vocab_size": VOCAB, "tie_word_embeddings": False, "dense_layers": m, "bos_token_id": 1,
            "eos_token_id": 2, "torch_dtype": "float32"}


def numbers(tensor):
    return tensor.float().tolist()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="test/fixtures")
    args = parser.parse_args()
    for seed, (name, (m, shared_gate)) in enumerate(VARIANTS.items()):
        folder = Path(args.out) / name
        folder.mkdir(parents=True, exist_ok=True)
        generator = torch.Generator().manual_seed(seed)
        (folder / "config.json").write_text(json.dumps(config(m), indent=2) + "\n")
        save_file(random_weights(m, shared_gate, generator), str(folder / "model.safetensors"), metadata={"format": "pt"})
        model, sequences = DenseMamba(folder), []
        for _ in range(2):
            tokens = torch.randint(VOCAB, (12,), generator=generator).tolist()
            model.reset()
            logits = model.forward(tokens)
            sequences.append({"token_ids": tokens, "logits": numbers(logits),
                              "ssm": [numbers(h.T) for h in model.ssm], "conv": [numbers(c) for c in model.conv]})
        (folder / "expected.json").write_text(json.dumps({
            "about": "float64 reference, rounded to float32; states are those after the last token",
            "shapes": {"logits": "[12,V]", "ssm": "[layer][N,E]", "conv": "[layer][K-1,E], oldest first, before the convolution"},
            "sequences": sequences}) + "\n")
        print(name, sum(f.stat().st_size for f in folder.iterdir()), "bytes")


if __name__ == "__main__":
    main()
