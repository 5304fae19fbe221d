"""Detection and instance masks on COCO, semantic segmentation on ADE20K, both with a pre-trained backbone.

The training code is the real mmdet and mmsegmentation; the harness supplies resolved configs, strict backbone
loading, the compiled operators (``bridge``) and the evaluation rows.
"""
