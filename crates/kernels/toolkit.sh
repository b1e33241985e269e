#!/usr/bin/env bash
# Makes a CUDA 13.0 toolkit (nvcc and headers) in the folder given, from wheels of the Python package index:
# enough to compile the kernels on a machine without CUDA. Prints what CUDA_HOME must be.
set -euo pipefail
mkdir -p "${1:?usage: toolkit.sh FOLDER}"
# Build scripts run in their crate's folder: a relative path would not be found from there.
target=$(cd "$1" && pwd)
home=$target/nvidia/cu13
if [ ! -x "$home/bin/nvcc" ]; then
    python3 -m pip install --quiet --no-deps --only-binary=:all: --target "$target" \
        nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-crt==13.0.88 \
        nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
    chmod +x "$home"/bin/* "$home"/nvvm/bin/* 2>/dev/null || true
fi
# Wheels hold the versioned libraries alone; linkers ask for the plain names.
for library in "$home"/lib/lib*.so.*; do
    ln -sf "$(basename "$library")" "${library%%.so.*}.so"
done
[ -e "$home/lib64" ] || ln -s lib "$home/lib64"
"$home/bin/nvcc" --version >&2
echo "$home"
