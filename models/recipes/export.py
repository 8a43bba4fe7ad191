"""A training checkpoint as a model folder that the server loads.

  python export.py RUN/last.pt --data FOLDER --out MODEL_FOLDER [--dtype float16] [--raw]

Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json (with the chat template),
generation_config.json and README.md, the model card.
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

import card
from train import load_model

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] if message['role'] == 'assistant' else message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
BOS, EOS, IM_END = 1, 2, 4


def mamba_config(c, dtype):
    return {"architectures": ["DenseMambaForCausalLM"], "model_type": "dense_mamba", "hidden_size": c.hidden, "num_hidden_layers": c.layers,
            "state_size": c.state, "conv_kernel": c.conv, "expand": c.expand, "intermediate_size": c.inner, "time_step_rank": c.rank,
            "use_bias": False, "use_conv_bias": True, "hidden_act": "silu", "layer_norm_epsilon": c.eps, "vocab_size": c.vocab,
            "tie_word_embeddings": True, "dense_layers": c.m, "bos_token_id": BOS, "eos_token_id": EOS, "torch_dtype": dtype}


def retnet_config(c, dtype):
    return {"architectures": ["DenseGauRetNetForCausalLM"], "model_type": "DenseGauRetNet", "hidden_size": c.hidden, "query_key_dim": c.key,
            "num_hidden_layers": c.layers, "num_attention_heads": c.heads, "v_factor": c.value // c.hidden, "hidden_act": "silu",
            "rms_norm_eps": c.eps, "layernorm_eps": 1e-5, "retnorm": False, "deepnorm": False, "dropout": 0.0, "vocab_size": c.vocab,
            "tie_word_embeddings": True, "dense_block_layers": c.m, "intermediate_k_select_scale": c.hidden // c.k_select,
            "intermediate_v_select_scale": c.hidden // c.v_select, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": 0, "torch_dtype": dtype}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    parser.add_argument("--raw", action="store_true", help="the weights themselves, not their average")
    args = parser.parse_args()
    model, saved = load_model(args.checkpoint, average=not args.raw)
    configs = {"dense_mamba": mamba_config, "mamba": mamba_config, "dense_retnet": retnet_config, "retnet": retnet_config}
    config = configs[saved["arch"]](model.config, args.dtype)
    args.out.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to(getattr(torch, args.dtype)).contiguous() for name, p in model.named_parameters()}
    save_file(weights, str(args.out / "model.safetensors"), metadata={"format": "pt", "tokens_seen": str(saved["tokens"])})
    (args.out / "model.safetensors").chmod(0o644)
    shutil.copyfile(args.data / "tokenizer.json", args.out / "tokenizer.json")
    for name, content in {
        "config.json": config,
        "generation_config.json": {"bos_token_id": BOS, "eos_token_id": [EOS, IM_END], "do_sample": True, "temperature": 0.8, "top_p": 0.95},
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **SPECIAL, "add_bos_token": True, "chat_template": CHAT_TEMPLATE,
                                  "clean_up_tokenization_spaces": False, "model_max_length": 1000000000},
    }.items():
        (args.out / name).write_text(json.dumps(content, indent=2) + "\n")
    log = args.checkpoint.parent / "log.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    card.write(args.out / "README.md", args.out.name, model, saved, rows)
    print(f"{args.out}: {sum(w.numel() for w in weights.values()):,} parameters after {saved['tokens']:,} tokens")


if __name__ == "__main__":
    main()
