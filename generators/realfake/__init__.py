"""RealFake (Yuan et al., ICLR 2024) re-implemented: the release trains, but cannot generate, without unpublished parts."""
