"""A distribution of plugins whose smallest run has every kind of cell: fit, synthesis, copy, training, extraction, evaluation."""

from __future__ import annotations

from pathlib import Path

PLUGIN = '''
from harness.api import (DerivedInput, Estimate, Generator, GeneratorCard, Item, Metric, Sample, Score, Settings, Suite, SuiteCard,
                         classifier, load_state, open_images, save_state, write_json, write_text)

STEPS = 3

class DustSettings(Settings):
    grain: float = 1.0

class Dust(Generator):
    card = GeneratorCard(id="dust", version=1, summary="Dust.", information=("class_names",), real_pixels_at_training=False,
                         real_pixels_at_synthesis=False)
    Settings = DustSettings
    fit_fields = ("grain",)

    def fit(self, ctx):
        """Add up random numbers, with a checkpoint after every step and a log that grows by lines."""
        import numpy as np
        import torch
        state = ctx.scratch / "checkpoint.pt"
        step, content = load_state(state, ctx.cell.key)
        total = content.get("total", torch.zeros(300))
        while step < STEPS:
            rng = np.random.default_rng(ctx.seed("step", step))
            total = total + torch.from_numpy(rng.random(300, dtype=np.float32))
            step += 1
            save_state(state, ctx.cell.key, step, {"total": total})
            ctx.progress(step, STEPS, "steps")
        write_json(ctx.out / "weights.json", [round(float(each), 4) for each in total])
        write_text(ctx.out / "log.txt", "done\\n")

    def synthesise(self, ctx, request):
        import json
        import numpy as np
        weights = json.loads(ctx.inputs["weights"].path("weights.json").read_text())
        for index in range(request.start, request.stop):
            rng = np.random.default_rng(request.seed(index))
            size = request.size_px
            pixels = rng.integers(0, 200, (size, size, 3), dtype=np.uint8) + int(weights[request.class_index] * 10)
            yield Sample(index, pixels.astype(np.uint8), seed=request.seed(index))

class Grit(Dust):
    card = GeneratorCard(id="grit", version=1, summary="Grit.", information=("class_names",), real_pixels_at_training=False,
                         real_pixels_at_synthesis=False)

def brightness_of(ctx, role):
    import io
    import numpy as np
    from PIL import Image
    images = open_images(ctx, role)
    return {name: float(np.asarray(Image.open(io.BytesIO(images.read(i)))).mean()) / 255 for i, name in enumerate(images.names)}

class Brightness(Suite):
    card = SuiteCard(id="brightness", version=1, summary="Mean of all pixels.", formula="mean", conventions=(), citation="",
                     order=1, data=(), subject="dataset")

    def rows(self, ctx):
        import pandas as pd
        found = brightness_of(ctx, "dataset")
        return pd.DataFrame({"item": list(found), "brightness": list(found.values())})

    def score(self, rows, item, settings, cards):
        value = float(rows["brightness"].mean())
        return Score((Metric("brightness", Estimate(value, value - 0.01, value + 0.01, len(rows), "toy", "these images")),))

def features(ctx):
    """What a network says of a grey picture, twice: in numbers and in a table of its own."""
    import numpy as np
    import torch
    network = classifier(ctx)
    with torch.no_grad():
        logits = network(torch.full((1, 3, 16, 16), 0.5)).numpy()
    with open(ctx.scratch / "half.txt", "w") as stream:
        stream.write("half")
    from harness.api import atomic_path
    with atomic_path(ctx.out / "features.npy") as temporary:
        with temporary.open("wb") as stream:
            np.save(stream, logits)

class Shade(Suite):
    card = SuiteCard(id="shade", version=1, summary="What a network says of grey.", formula="logit", conventions=(), citation="",
                     order=2, data=())

    def items(self, settings, arch):
        need = DerivedInput("features", "grey-features", 1, "lab_plugins:features", {})
        return (Item(label="grey", data=(), derived_inputs=(need,)),)

    def rows(self, ctx):
        import numpy as np
        import pandas as pd
        import torch
        network = classifier(ctx)
        with torch.no_grad():
            own = network(torch.full((1, 3, 16, 16), 0.25)).numpy()[0]
        kept = np.load(ctx.inputs["features"].path("features.npy"))[0]
        return pd.DataFrame({"item": [str(i) for i in range(len(own))], "own": own, "kept": kept})

    def score(self, rows, item, settings, cards):
        value = 1 / (1 + abs(float(rows["own"].sum() + rows["kept"].sum())))
        return Score((Metric("shade", Estimate(value, value, value, len(rows), "toy", "grey")),))
'''
ENTRY_POINTS = """[harness.generators]
dust = lab_plugins:Dust
grit = lab_plugins:Grit
[harness.suites]
brightness = lab_plugins:Brightness
shade = lab_plugins:Shade
"""
PROFILE = """name = "lab"
classes = "CLASSES"
[dataset]
images_per_class = 4
chunk = 2
size_px = 16
copy_px = 16
[backbones.resnet10]
epochs = 3
warmup_epochs = 0
batch_size = 8
image_size = 16
randaugment_ops = 0
drop_path = 0
"""


def install(folder: Path) -> Path:
    """Write the distribution and its profile; return the profile."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab_plugins.py").write_text(PLUGIN)
    info = folder / "lab_plugins-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-plugins\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (folder / "classes.txt").write_text("a thing a\nb thing b\n")
    profile = folder / "lab.toml"
    profile.write_text(PROFILE.replace("CLASSES", str(folder / "classes.txt")))
    return profile
