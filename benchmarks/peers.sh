#!/bin/sh
# The peers of benchmarks/encoding.py, each in an environment of its own:
#
#     benchmarks/peers.sh FOLDER        then set the variables that it prints
#
# Needs Python 3.11 with all of Trivium's extras (./.venv, or PYTHON), and 3.12 for rclip (python3.12, or PYTHON312).
# The first two use that environment's torch, transformers and ONNX Runtime by a .pth file; their own packages come
# first. Without --no-deps pip would fetch a second torch, for GPUs: several GB.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
python312=${PYTHON312:-python3.12}
mkdir -p "$1"
cd "$1"
shared=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

sharing() {  # NAME PACKAGE...: an environment that falls back on ours
    name=$1
    shift
    "$python" -m venv "$name"
    site=$("$name/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    echo "$shared" > "$site/shared.pth"
    "$name/bin/pip" install --quiet --no-deps "$@"
}

sharing text \
    sentence-transformers==6.2.0 scikit-learn scipy joblib threadpoolctl narwhals cloudpickle \
    fastembed==0.9.1 loguru py-rust-stemmers mmh3 requests urllib3 charset-normalizer certifi \
    infinity-emb==0.0.78

sharing clip-retrieval \
    clip-retrieval==2.45.0 all-clip==1.3.0 autofaiss==2.18.0 clip-anytorch open-clip-torch==2.32.0 \
    'numpy==1.26.4' 'pyarrow==15.0.2' 'pandas<3' 'webdataset<0.3' 'fire<0.6' embedding_reader braceexpand \
    'sentence-transformers<3' 'transformers<5' 'huggingface_hub<1' 'tokenizers<0.23' multilingual-clip \
    scikit-learn scipy joblib threadpoolctl narwhals cloudpickle h5py img2dataset opencv-python-headless \
    'flask<4' flask_restful 'flask_cors<5' werkzeug itsdangerous blinker aniso8601 prometheus-client \
    requests urllib3 certifi charset-normalizer python-dateutil six pytz tzdata termcolor
# Imported when it is loaded, used only with --enable_wandb.
: > "$(clip-retrieval/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wandb.py"

"$python312" -m venv rclip
rclip/bin/pip install --quiet rclip==4.0.8

for module in sentence_transformers fastembed infinity_emb; do text/bin/python -W ignore -c "import $module"; done
clip-retrieval/bin/python -W ignore -c 'import clip_retrieval.clip_inference'
rclip/bin/python -c 'import rclip.main'
echo "export TRIVIUM_TEXT_PEERS=$PWD/text/bin/python"
echo "export TRIVIUM_CLIP_RETRIEVAL=$PWD/clip-retrieval/bin/clip-retrieval TRIVIUM_RCLIP=$PWD/rclip/bin/rclip"
