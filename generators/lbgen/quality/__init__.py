"""Quality scorers of lbGen: score images from 1 to 5 with a gradient (lbGen, CVPR 2025, quality loss)."""

from generators.lbgen.quality.api import QualityScorer
from generators.lbgen.quality.load import load_quality

__all__ = ["QualityScorer", "load_quality"]
