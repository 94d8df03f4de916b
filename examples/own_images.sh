#!/usr/bin/env bash
# From a folder of images to a model in use: check, compare, fit, predict, export.
# The folder is made here: scikit-learn's handwritten digits, the eights being rare, one image in a hundred.
#
#     bash examples/own_images.sh [WORK]      WORK is made, by default own_images
set -euo pipefail
work=${1:-own_images}
mkdir "$work" && cd "$work"

python - <<'PYTHON'
from pathlib import Path
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

images, labels = load_digits(return_X_y=True)
for folder, rows in ('other', np.flatnonzero(labels != 8)), ('eight', np.flatnonzero(labels == 8)[:16]), ('new', np.flatnonzero(labels == 8)[16:56]):
    where = Path('new' if folder == 'new' else f'digits/{folder}')
    where.mkdir(parents=True)
    for i in rows:
        pixels = np.uint8(255 - images[i].reshape(8, 8)*15.9)
        Image.fromarray(pixels).resize((32, 32), Image.BICUBIC).save(where/f'{i:04d}.png')
PYTHON

# 1. What is in the folder, and what can be hoped for with sixteen eights?
bn-data check digits

# 2. Which remedy works?
bn-compare digits --size 64 --seeds 8 --epochs 5 --recipes plain,weighted,final_bn --out compare

# 3. Train it on everything. To miss an eight is twenty times as bad as a false alarm.
bn-fit digits --compare compare --cost-miss 20 --cost-alarm 1 --out model

# 4. Use it: on eights that nobody has seen, and a few others.
cp digits/other/000*.png new
bn-predict model new --csv predictions.csv --explain maps
head -5 predictions.csv

# 5. Take it elsewhere.
bn-export model --onnx model.onnx --torch model.pt2
