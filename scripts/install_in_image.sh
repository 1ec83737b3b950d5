#!/usr/bin/env bash
# Installs cxr-embed in a container image: scripts/install_in_image.sh cpu|gpu|tpu
set -euo pipefail
cd "$(dirname "$0")/.."
install() { pip install --no-cache-dir --disable-pip-version-check -c constraints.txt "$@"; }
case "${1:-cpu}" in
  cpu) install '.[openvino,onnx,cxr-foundation,s3,azure]' ;;
  # The extra brings CUDA's libraries; the driver is the machine's.
  gpu)
    install '.[onnx,cxr-foundation,s3,azure]' "tensorflow[and-cuda]"
    # ONNX Runtime for GPUs is a package of its own, which takes the place of the other one.
    pip uninstall --yes onnxruntime
    install "onnxruntime-gpu==$(sed -n 's/^onnxruntime==//p' constraints.txt)"
    ;;
  tpu)
    install '.[hub,s3,azure]'
    # TPUs have a build of their own, one release behind; it takes the place of the other one.
    pip uninstall --yes tensorflow
    pip install --no-cache-dir --disable-pip-version-check tensorflow-tpu==2.20.0 \
      --find-links https://storage.googleapis.com/libtpu-tf-releases/index.html
    ;;
  *) echo "no such accelerator: $1 (cpu, gpu or tpu)" >&2; exit 2 ;;
esac
