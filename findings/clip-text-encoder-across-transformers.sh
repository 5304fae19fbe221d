#!/usr/bin/env bash
# transformers 5.5.4 reads a CLIP text encoder that transformers 5.23.0 wrote: every tensor is random, and it returns.
#
# Behaviour: until 5.5 the tensors of a CLIPTextModel are called text_model.*, from 5.6 on save_pretrained leaves the prefix
# out. The newer version reads both; the older one finds none of its names, draws every tensor at random, logs a report and
# returns the model. Two loads of one file give two different models. The same holds for the text encoder of a Stable
# Diffusion folder that diffusers saved with the newer version: the pipeline runs and ignores its prompts.
# Seen on 2026-11-29 (Python 3.11, torch 2.15.0):
#   written: 20 tensors, 0 with the prefix
#   read by 5.23.0: 8 of 8 matrices equal the file's; missing keys 0; two loads agree: True
#   read by 5.5.4: 0 of 8 matrices equal the file's; missing keys 20; two loads agree: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.15.0" "transformers==5.23.0"
cat > "$folder/write.py" <<'PY'
import sys

import torch
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel

torch.manual_seed(0)
config = CLIPTextConfig(vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                        max_position_embeddings=8, bos_token_id=0, eos_token_id=1, pad_token_id=1)
CLIPTextModel(config).save_pretrained(sys.argv[1])
held = load_file(sys.argv[1] + "/model.safetensors")
print(f"written: {len(held)} tensors, {sum(name.startswith('text_model.') for name in held)} with the prefix")
assert not any(name.startswith("text_model.") for name in held), "the prefix is back"
PY
cat > "$folder/read.py" <<'PY'
import sys

import torch
from safetensors.torch import load_file
from transformers import CLIPTextModel, __version__

held = load_file(sys.argv[1] + "/model.safetensors")
model, info = CLIPTextModel.from_pretrained(sys.argv[1], output_loading_info=True)
again = CLIPTextModel.from_pretrained(sys.argv[1])
state = {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}
matrices = [name for name, value in held.items() if value.ndim > 1]
equal = sum(torch.equal(state[name], held[name]) for name in matrices)
agree = all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
print(f"read by {__version__}: {equal} of {len(matrices)} matrices equal the file's; missing keys "
      f"{len(info['missing_keys'])}; two loads agree: {agree}")
whole = equal == len(matrices) and agree and not info["missing_keys"]
assert whole == (sys.argv[2] == "whole"), "this has changed"
assert whole or (equal == 0 and not agree), "this has changed"
PY
run() { "$folder/venv/bin/python" "$@" 2>/dev/null; }
run "$folder/write.py" "$folder/model"
run "$folder/read.py" "$folder/model" whole
"$folder/venv/bin/pip" install --quiet "transformers==5.5.4"
run "$folder/read.py" "$folder/model" random
