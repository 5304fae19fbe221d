"""Match detections to ground truth with pycocotools and keep the outcome per image and category."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.api import UserError
from suites.perception.metrics import AREA_LIMITS, AREAS

if TYPE_CHECKING:
    import pandas as pd

MAX_DETECTIONS = 100
COLUMNS = ("image_id", "category_id", "iou_type", "area", "n_gt", "scores", "matches", "ignored")


def coco_rows(truth: dict[str, Any], detections: dict[str, list[dict[str, Any]]]) -> pd.DataFrame:
    """Match every image and category at ten IoUs and four area ranges.

    Args:
        truth: A COCO annotation dictionary (validation split, whole). Ids are any integers; AP does not depend on them.
        detections: "bbox" and "segm" result lists as the toolbox dumps them; empty lists give AP 0.

    Raises:
        UserError: a detection is of an image or a category that the annotations do not have.

    Returns:
        Rows as described in ``metrics``; image-category pairs with neither truth nor detections are left out,
        except that every image keeps at least one row so that the number of images is known.
    """
    import pandas as pd

    images, categories = (_Numbers(item["id"] for item in truth[key]) for key in ("images", "categories"))

    def renumbered(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
        _check_known(items, images.place, categories.place)
        return [
            {**item, "image_id": images.place[item["image_id"]], "category_id": categories.place[item["category_id"]]}
            for item in items
        ]

    objects = renumbered(truth.get("annotations", []))
    inside = {
        "images": [{**item, "id": images.place[item["id"]]} for item in truth["images"]],
        "categories": [{**item, "id": categories.place[item["id"]]} for item in truth["categories"]],
        "annotations": [{**item, "id": n, "iscrowd": item.get("iscrowd", 0)} for n, item in enumerate(objects, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        reference = _api(inside, inside["annotations"])
        records: list[dict[str, Any]] = []
        for iou_type in ("bbox", "segm"):
            records += _match(reference, inside, renumbered(detections.get(iou_type, [])), iou_type)
    for record in records:
        record["image_id"] = images.ids[record["image_id"] - 1]
        record["category_id"] = categories.ids[record["category_id"] - 1]
    return pd.DataFrame.from_records(records, columns=list(COLUMNS))


def _check_known(items: list[dict[str, Any]], images: Mapping[int, int], categories: Mapping[int, int]) -> None:
    for key, known in (("image_id", images), ("category_id", categories)):
        odd = [item.get(key) for item in items if item.get(key) not in known]
        if odd:
            raise UserError(
                f"{len(odd)} of {len(items)} detections are not of these COCO annotations",
                f"{key} {odd[0]!r} is not among the {len(known)} ids of the annotation file",
                "the detections belong to another data set: start the cell again in another store",
            )


class _Numbers:
    """Numbers from 1 in the order of a file's ids.

    pycocotools keeps the id of the matched object, where 0 stands for no match: an object numbered 0 would always
    count as missed. Inside, nothing has the number 0, and no id is too large for a float.
    """

    def __init__(self, ids: Iterable[int]) -> None:
        self.ids = sorted(ids)
        self.place = {item: number for number, item in enumerate(self.ids, 1)}


def _api(truth: dict[str, Any], annotations: list[dict[str, Any]]) -> Any:
    from pycocotools.coco import COCO

    api = COCO()
    api.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    api.createIndex()
    return api


def _match(reference: Any, truth: dict[str, Any], found: list[dict[str, Any]], iou_type: str) -> list[dict[str, Any]]:
    from pycocotools.cocoeval import COCOeval

    if iou_type == "segm":
        # With boxes present pycocotools would take the box's area for the size ranges of masks.
        found = [{k: v for k, v in item.items() if k != "bbox"} for item in found]
    results = reference.loadRes(found) if found else _api(truth, [])
    evaluation = COCOeval(reference, results, iou_type)
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.params.areaRng = [list(AREA_LIMITS[name]) for name in AREAS]
    evaluation.params.areaRngLbl = list(AREAS)
    evaluation.evaluate()
    names = {tuple(AREA_LIMITS[name]): name for name in AREAS}
    first = evaluation.params.catIds[0]
    every = {(image, first, "all") for image in evaluation.params.imgIds}
    records = [_record(item, iou_type, names[tuple(item["aRng"])]) for item in evaluation.evalImgs if item is not None]
    seen = {(r["image_id"], r["category_id"], r["area"]) for r in records}
    covered = {r["image_id"] for r in records}
    empty = [
        {
            "image_id": i,
            "category_id": c,
            "iou_type": iou_type,
            "area": a,
            "n_gt": 0,
            "scores": [],
            "matches": [],
            "ignored": [],
        }
        for i, c, a in sorted(every - seen)
        if i not in covered
    ]
    return records + empty


def _record(item: dict[str, Any], iou_type: str, area: str) -> dict[str, Any]:
    weights = 1 << np.arange(item["dtMatches"].shape[0], dtype=np.int64)
    return {
        "image_id": int(item["image_id"]),
        "category_id": int(item["category_id"]),
        "iou_type": iou_type,
        "area": area,
        "n_gt": int(np.count_nonzero(np.asarray(item["gtIgnore"]) == 0)),
        "scores": [float(s) for s in item["dtScores"]],
        "matches": [int(b) for b in weights @ (item["dtMatches"] != 0)],
        "ignored": [int(b) for b in weights @ item["dtIgnore"].astype(bool)],
    }
