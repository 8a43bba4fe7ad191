"""ops.py (C++, CPU), gpu.py (Triton, CUDA) and plain.py (PyTorch, anywhere) have the same functions."""
import importlib

import torch


def best():
    return importlib.import_module(".gpu" if torch.cuda.is_available() else ".ops", __name__)
