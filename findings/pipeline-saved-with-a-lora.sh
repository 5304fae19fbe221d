#!/usr/bin/env bash
# diffusers 0.42.1 loads a UNet that was saved while a LoRA was loaded with attention weights that have no values, and it runs.
#
# Behaviour: save_pretrained of a UNet (or pipeline) with an adapter, fused or not, writes the names of the wrapped layers
# (to_q.base_layer.weight, to_q.lora_A.default.weight). from_pretrained knows none of them, logs a warning, leaves the adapted
# layers on the meta device and returns. torch 2.15.0 multiplies a CPU tensor by a meta tensor to a CPU tensor of arbitrary
# numbers instead of raising, so the network runs and a pipeline makes images. Saved after unload_lora the same UNet is whole.
# Seen on 2026-11-29 (Python 3.11, torch 2.15.0, peft 0.21.2, accelerate 1.15.0):
#   saved with an adapter: 24 of 224 tensors have an adapter's names; 8 read without values; it runs, on cpu
#   saved fused: 24 of 224 tensors have an adapter's names; 8 read without values; it runs, on cpu
#   saved unloaded: 0 of 208 tensors have an adapter's names; 0 read without values; it runs, on cpu
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.15.0" "diffusers==0.42.1" "transformers==5.23.0" "peft==0.21.2" "accelerate==1.15.0"
cat > "$folder/check.py" <<'PY'
import sys

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from safetensors.torch import load_file

torch.manual_seed(0)
unet = UNet2DConditionModel(sample_size=8, layers_per_block=1, block_out_channels=(16, 32), cross_attention_dim=16, norm_num_groups=8,
                            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=2,
                            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))


def check(words, name, whole):
    unet.save_pretrained(f"{sys.argv[1]}/{name}")
    held = load_file(f"{sys.argv[1]}/{name}/diffusion_pytorch_model.safetensors")
    adapter = sum(".base_layer." in key or ".lora_" in key for key in held)
    read = UNet2DConditionModel.from_pretrained(f"{sys.argv[1]}/{name}")
    empty = sum(each.is_meta for each in read.parameters())
    with torch.no_grad():
        made = read(torch.ones(1, 4, 8, 8), 1, encoder_hidden_states=torch.ones(1, 2, 16)).sample
    print(f"saved {words}: {adapter} of {len(held)} tensors have an adapter's names; {empty} read without values; "
          f"it runs, on {made.device}")
    assert (adapter == 0) == (empty == 0) == whole and made.device.type == "cpu", "this has changed"


unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
check("with an adapter", "adapter", False)
unet.fuse_lora()
check("fused", "fused", False)
unet.unload_lora()
check("unloaded", "unloaded", True)
PY
"$folder/venv/bin/python" "$folder/check.py" "$folder" 2>/dev/null
