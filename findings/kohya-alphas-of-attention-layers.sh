#!/usr/bin/env bash
# diffusers 0.42.1 gives every attention layer of a kohya LoRA the alpha that is most frequent in the file, not its own.
#
# Behaviour: kohya's scripts store one alpha a module and scale its product by alpha / rank (networks/lora.py, LoRAModule);
# without an alpha it is the rank. load_lora_weights collects the alphas, and means to pass those that differ to PEFT as
# alpha_pattern. For attention layers the keys of that pattern end in "processor.to_q_lora.down.weight", which is the name of no
# module, so PEFT matches none of them, without a word; for feed-forward layers they match. A module without alpha takes the
# alpha of the others. Files whose ranks differ, as kohya's resize_lora writes them, have such alphas.
# Seen on 2026-11-29 (Python 3.11, torch 2.15.0, peft 0.21.2, accelerate 1.15.0; rank 4, alphas 1 and one 4):
#   attn1.to_q: the file says 4 / 4 = 1.0, the pipeline uses 0.25
#   ff.net.2: the file says 4 / 4 = 1.0, the pipeline uses 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "torch==2.15.0" "diffusers==0.42.1" "transformers==5.23.0" "peft==0.21.2" "accelerate==1.15.0"
cat > "$folder/check.py" <<'PY'
import sys

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin as Loader
from safetensors.torch import save_file

PATH = "mid_block.attentions.0.transformer_blocks.0."
LAYERS = [PATH + each for each in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.2")]
RANK, SCALE = 4, {"attn1.to_q": 0.25, "ff.net.2": 1.0}


def used(odd):
    """Return the scale at which one layer is used, of alpha 4 where all others have alpha 1."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=8, layers_per_block=1, block_out_channels=(16, 32), cross_attention_dim=16,
                                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=2,
                                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), norm_num_groups=8)
    tensors = {}
    for layer in LAYERS:
        out, width = unet.get_submodule(layer).weight.shape
        key = "lora_unet_" + layer.replace(".", "_")
        tensors[key + ".lora_down.weight"] = torch.randn(RANK, width)
        tensors[key + ".lora_up.weight"] = torch.randn(out, RANK)
        tensors[key + ".alpha"] = torch.tensor(4.0 if layer == PATH + odd else 1.0)
    save_file(tensors, f"{sys.argv[1]}/lora.safetensors")
    state, alphas, metadata = Loader.lora_state_dict(
        f"{sys.argv[1]}/lora.safetensors", unet_config=unet.config, return_lora_metadata=True
    )
    Loader.load_lora_into_unet(state, network_alphas=alphas, unet=unet, metadata=metadata)
    key, before = "lora_unet_" + (PATH + odd).replace(".", "_"), unet.get_submodule(PATH + odd).base_layer.weight.clone()
    unet.fuse_lora()
    unet.unload_lora()
    moved = unet.get_submodule(PATH + odd).weight - before
    product = tensors[key + ".lora_up.weight"] @ tensors[key + ".lora_down.weight"]
    return round(((moved * product).sum() / (product * product).sum()).item(), 4)


for layer, scale in SCALE.items():
    found = used(layer)
    print(f"{layer}: the file says 4 / {RANK} = 1.0, the pipeline uses {found}")
    assert found == scale, "this has changed"
PY
"$folder/venv/bin/python" "$folder/check.py" "$folder" 2>/dev/null
