#!/usr/bin/env bash
# COCO evaluation, pycocotools 2.0.11 and faster-coco-eval 1.8.0: an annotation whose id is 0 can never be found.
#
# Behaviour: both note for every detection the id of the annotation that it matched, and 0 also stands for "matched nothing".
# A perfect detection of the annotation with id 0 counts as a false positive, and the annotation as missed. pycocotools says
# nothing; faster-coco-eval gives the same number with a UserWarning. The format asks for integer ids, not for positive ones;
# converters that number annotations from 0 write such files.
# Seen on 2026-11-28 (Python 3.11, numpy 2.4.6), two perfect detections in one picture:
#   pycocotools: AP 1.000 with ids 1, 2; AP 0.252 with ids 0, 1; warnings: 0
#   faster-coco-eval: AP 1.000 with ids 1, 2; AP 0.252 with ids 0, 1; warnings: 1
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "pycocotools==2.0.11" "faster-coco-eval==1.8.0" "numpy==2.4.6"
"$folder/venv/bin/python" - <<'PY'
import contextlib
import io
import warnings

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

KINDS = {
    "pycocotools": (pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": (faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}


def average_precision(kind: str, first_id: int) -> float:
    COCO, COCOeval = KINDS[kind]
    boxes = [[10, 10, 20, 20], [50, 50, 30, 30]]
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 100, "height": 100}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [
            {"id": first_id + i, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for i, box in enumerate(boxes)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found = truth.loadRes([{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes])
        run = COCOeval(truth, found, "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return float(run.stats[0])


for kind, expected in (("pycocotools", 0), ("faster-coco-eval", 1)):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        one, zero = (average_precision(kind, first) for first in (1, 0))
    said = sum("annotation id 0" in str(each.message) for each in caught)
    print(f"{kind}: AP {one:.3f} with ids 1, 2; AP {zero:.3f} with ids 0, 1; warnings: {said}")
    assert one == 1.0 and abs(zero - 0.252) < 0.001, f"{kind} has changed"
    assert said == expected, f"{kind} warns otherwise than it did"
PY
