"""In-domain accuracy: class folders, the flat archive with its devkit, and restriction."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from harness.core.classes import load_classes
from harness.core.errors import DataMissing, UserError
from suites.imagefolder import read_validation
from suites.in_domain import ValidationCard, validation_outputs

IDS = ("n01440764", "n01443537", "n01484850")


def folders(root, save_image, ids=IDS, count=2):
    for k, wnid in enumerate(ids):
        for i in range(count):
            save_image(root / wnid / f"ILSVRC2012_val_{k * 10 + i:08d}.JPEG", i)


def flat(root, save_image, save_struct):
    """Six images; the devkit's ids 1, 2, 3 are the wnids in another order than the sorted one."""
    for i in range(1, 7):
        save_image(root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", i)
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(
        data / "meta.mat",
        {
            "synsets": save_struct(
                ILSVRC2012_ID=[1, 2, 3, 4],
                WNID=[IDS[2], IDS[0], IDS[1], "n00000001"],
                words=["a", "b", "c", "all"],
                num_children=[0, 0, 0, 3],
            )
        },
    )
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("1\n2\n3\n3\n2\n1\n")


@pytest.mark.parametrize("place", ["", "val"])
def test_transfer_in_domain_class_folders(tmp_path, save_image, place):
    folders(tmp_path / place, save_image)
    images = read_validation(tmp_path, IDS, per_class=2)
    assert images.layout == "class folders" and images.outside == 0
    assert images.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert all((images.root / path).is_file() for path in images.paths)


def test_transfer_in_domain_restriction_uses_the_list_order(tmp_path, save_image):
    folders(tmp_path, save_image)
    images = read_validation(tmp_path, (IDS[2], IDS[0]))
    assert images.outside == 2
    assert {path.split("/")[0]: int(label) for path, label in zip(images.paths, images.labels, strict=True)} == {
        IDS[0]: 1,
        IDS[2]: 0,
    }


def test_transfer_in_domain_flat_archive(tmp_path, save_image, save_struct):
    flat(tmp_path, save_image, save_struct)
    images = read_validation(tmp_path, IDS, per_class=2)
    assert images.layout == "flat archive with devkit"
    assert images.labels.tolist() == [2, 0, 1, 1, 0, 2]  # meta.mat order, not the sorted one
    restricted = read_validation(tmp_path, IDS[:1])
    assert restricted.outside == 4 and restricted.labels.tolist() == [0, 0]
    assert [path[-8:] for path in restricted.paths] == ["002.JPEG"[-8:], "005.JPEG"[-8:]]


def test_transfer_in_domain_errors(tmp_path, save_image, save_struct):
    with pytest.raises(DataMissing, match="no validation images"):
        read_validation(tmp_path, IDS)
    flat(tmp_path, save_image, save_struct)
    (tmp_path / "val" / "ILSVRC2012_val_00000003.JPEG").unlink()
    with pytest.raises(UserError, match="expected 6 images, found 5"):
        read_validation(tmp_path, IDS, per_class=2)
    (tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt").unlink()
    with pytest.raises(DataMissing, match="without the devkit"):
        read_validation(tmp_path, IDS)


def test_transfer_in_domain_counts(tmp_path, save_image):
    folders(tmp_path, save_image)
    with pytest.raises(UserError, match="expected 50 of each class, found 2"):
        read_validation(tmp_path, IDS, per_class=50)
    with pytest.raises(DataMissing, match="1 classes have no validation images"):
        read_validation(tmp_path, (*IDS, "n09999999"))
    assert np.bincount(read_validation(tmp_path, IDS).labels).tolist() == [2, 2, 2]


def test_transfer_in_domain_imagenet1k_head_on_imagenet100_folders_is_restricted(tmp_path, save_image):
    small, full = load_classes("imagenet100").ids, load_classes("imagenet1k").ids
    folders(tmp_path / "val", save_image, small, 1)
    ids, outputs = validation_outputs(full, ValidationCard(), tmp_path)
    assert ids == small and [full[i] for i in outputs] == list(small)
    assert validation_outputs(small, ValidationCard(), tmp_path) == (small, list(range(100)))
    assert validation_outputs(IDS, ValidationCard(), tmp_path) == (
        IDS,
        [0, 1, 2],
    )  # another head meets its own classes or none
    next((tmp_path / "val" / small[7]).iterdir()).unlink()
    with pytest.raises(DataMissing, match="1 classes have no validation images") as caught:
        read_validation(tmp_path, ids)
    assert "data.val.card" in caught.value.fix
    save_image(tmp_path / "val" / IDS[0] / "ILSVRC2012_val_00000001.JPEG", 1)  # now it is an incomplete ImageNet-1k
    with pytest.raises(DataMissing, match="900 classes"):
        read_validation(tmp_path, validation_outputs(full, ValidationCard(), tmp_path)[0])


def test_transfer_in_domain_damaged_ground_truth_and_second_copies(tmp_path, save_image, save_struct):
    flat(tmp_path, save_image, save_struct)
    truth = tmp_path / "ILSVRC2012_devkit_t12" / "data" / "ILSVRC2012_validation_ground_truth.txt"
    for content in (b"1\n2\nthree\n3\n2\n1\n", b"1\n2\n\xb3\n3\n2\n1\n"):
        whole = truth.read_bytes()
        truth.write_bytes(content)
        with pytest.raises(UserError, match="entry 3 is"):
            read_validation(tmp_path, IDS)
        truth.write_bytes(whole)
    save_image(tmp_path / "val" / "ILSVRC2012_val_00000001 (1).JPEG", 1)
    with pytest.raises(UserError, match=r"00000001 \(1\).JPEG"):
        read_validation(tmp_path, IDS)
