#!/usr/bin/env bash
# MMEngine 0.10.7, EMAHook: a checkpoint keeps the averaged weights under "state_dict" and the last step's under "ema_state_dict".
#
# Behaviour: while a checkpoint is saved the hook exchanges the two, so that "state_dict" can be deployed as it is; its own
# resume exchanges them back. A reader that goes by the names takes the last step's weights for the average, and the average for
# the raw weights: every name and shape fits, and only the numbers are other ones.
# Seen on 2026-11-29 (Python 3.11, torch 2.15.0), a linear layer after four steps:
#   state_dict is the average, ema_state_dict is the last step
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mmengine==0.10.7" "torch==2.15.0" "setuptools<81"
"$folder/venv/bin/python" - <<'PY'
from types import SimpleNamespace

import torch
from mmengine.hooks import EMAHook
from torch import nn

torch.manual_seed(0)
model = nn.Linear(2, 1)
hook = EMAHook(ema_type="ExponentialMovingAverage", momentum=0.5)
runner = SimpleNamespace(model=model, _resume=False, iter=0, epoch=0)
hook.before_run(runner)
with torch.no_grad():
    for step in range(4):
        model.weight += 1.0
        hook.ema_model.update_parameters(model)
raw, average = model.weight.detach().clone(), hook.ema_model.module.weight.detach().clone()
checkpoint = {"state_dict": {name: value.clone() for name, value in model.state_dict().items()}}
hook.before_save_checkpoint(runner, checkpoint)
plain, ema = checkpoint["state_dict"]["weight"], checkpoint["ema_state_dict"]["module.weight"]
print(f"state_dict is the {'average' if plain.equal(average) else 'last step'}, "
      f"ema_state_dict is the {'last step' if ema.equal(raw) else 'average'}")
assert not raw.equal(average)
assert plain.equal(average) and ema.equal(raw), "the names mean what they say now"
PY
