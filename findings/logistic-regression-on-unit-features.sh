#!/usr/bin/env bash
# scikit-learn 1.9.1: LogisticRegression on unit-length features stops far from its optimum and reports success.
#
# Behaviour: lbfgs stops when the largest entry of the gradient of the *mean* loss is below tol (default 1e-4). Features of
# length 1 make every gradient small, so with a large C the first iterations already pass: no ConvergenceWarning, few
# iterations, and a test accuracy that a tighter tol raises by tens of points at the same C. Linear probes on l2-normalised
# embeddings are the usual case.
# Seen on 2026-11-29 (Python 3.11, numpy 2.4.6, scipy 1.17.1), 1,000 samples of 50 classes in 512 dimensions, C = 1e6:
#   tol 1e-4: 19 iterations, warnings 0, test accuracy 17.8 %
#   tol 1e-8: 272 iterations, warnings 0, test accuracy 38.9 %
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "scikit-learn==1.9.1" "numpy==2.4.6" "scipy==1.17.1"
OMP_NUM_THREADS=1 "$folder/venv/bin/python" - <<'PY'
import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression

rng = np.random.default_rng(0)
classes, size = 50, 512
centres = rng.standard_normal((classes, size)) * 0.15
mixing = rng.standard_normal((size // 2, size)) / np.sqrt(size // 2)


def draw(each: int) -> tuple[np.ndarray, np.ndarray]:
    """Return correlated, non-negative features of length 1, as pooled activations are, with labels."""
    labels = np.repeat(np.arange(classes), each)
    noise = rng.standard_normal((len(labels), size // 2)) @ mixing + 0.1 * rng.standard_normal((len(labels), size))
    raw = np.maximum(centres[labels] + noise + 3.0, 0.0)
    return (raw / np.linalg.norm(raw, axis=1, keepdims=True)).astype(np.float32), labels


train, test = draw(20), draw(40)
found = {}
for tol in (1e-4, 1e-8):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = LogisticRegression(C=1e6, tol=tol, max_iter=5000).fit(*train)
    found[tol] = (int(model.n_iter_.max()), len(caught), 100 * model.score(*test))
    print(f"tol {tol:g}: {found[tol][0]} iterations, warnings {found[tol][1]}, test accuracy {found[tol][2]:.1f} %")
assert found[1e-4][1] == 0, "it warns now"
assert found[1e-8][2] - found[1e-4][2] > 10, "the default tolerance is enough now"
PY
