"""Backbones: the architectures, the pre-training recipe, checkpoints and the classifier made from them."""
