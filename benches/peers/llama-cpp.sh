#!/bin/sh
# Sets llama.cpp up, writes the model for all engines, and runs generation.py, to which further arguments go (`--contenders
# shaderlm:f16,llama-vulkan:f16,llama-cpu:f16` for llama.cpp alone). With `--build` it stops after setting up.
#
# llama.cpp comes from PyPI's llama-cpp-python, built from source with its Vulkan backend (some 15 minutes on two cores, once) into
# target/peers/llama-cpp. That needs: g++, cmake, ninja, glslc, libvulkan-dev, spirv-headers.
set -eu
cd "$(dirname "$0")/../.."
VERSION=0.3.36
PLACE="$PWD/target/peers/llama-cpp"
PYTHON="$PLACE/venv/bin/python"
FILES=target/peers/generation/gpt2-124m

if ! "$PYTHON" -c "import llama_cpp, sys; sys.exit(llama_cpp.__version__ != '$VERSION')" 2>/dev/null; then
  for tool in g++ cmake ninja glslc; do
    command -v $tool >/dev/null || { echo "llama-cpp.sh: $tool is not installed" >&2; exit 1; }
  done
  mkdir -p "$PLACE"
  python3 -m venv "$PLACE/venv"
  "$PYTHON" -m pip install -q numpy safetensors gguf==0.19.0 scikit-build-core typing-extensions diskcache jinja2
  SOURCE="$PLACE/llama_cpp_python-$VERSION"
  if [ ! -d "$SOURCE" ]; then
    # Without --no-build-isolation and --no-deps pip would build cmake and ninja from source, too.
    "$PYTHON" -m pip download -q --no-deps --no-build-isolation --no-binary llama-cpp-python -d "$PLACE" "llama-cpp-python==$VERSION"
    tar -xzf "$PLACE/llama_cpp_python-$VERSION.tar.gz" -C "$PLACE"
  fi
  # Headers before 1.3.272 (Debian 12 has 1.3.239) lack what llama.cpp sets up the validation layer with, which is used for debugging only.
  if ! grep -qs VK_EXT_layer_settings /usr/include/vulkan/vulkan_core.h; then
    sed -i -e '/std::vector<vk::LayerSettingEXT> settings = {/,/vk::LayerSettingsCreateInfoEXT layer_setting_info(settings);/d' \
      -e 's/, extensions, &layer_setting_info)/, extensions)/' "$SOURCE/vendor/llama.cpp/ggml/src/ggml-vulkan/ggml-vulkan.cpp"
  fi
  # What only llama.cpp's own programs need.
  sed -i 's/set(LLAMA_BUILD_COMMON ON /set(LLAMA_BUILD_COMMON OFF /' "$SOURCE/CMakeLists.txt"
  OFF=""
  for part in LLAVA_BUILD LLAMA_BUILD_TOOLS LLAMA_BUILD_TESTS LLAMA_BUILD_EXAMPLES LLAMA_BUILD_SERVER LLAMA_CURL LLAMA_OPENSSL; do
    OFF="$OFF -D$part=OFF"
  done
  PATH="$PLACE/venv/bin:$PATH" CMAKE_ARGS="-DGGML_VULKAN=ON -DGGML_NATIVE=ON $OFF" nice "$PYTHON" -m pip install -v --no-deps \
    --no-build-isolation -C build-dir="$PLACE/build" "$SOURCE" >"$PLACE/build.log" 2>&1 ||
    { grep -n "error" "$PLACE/build.log" | tail -n 20 >&2; echo "llama-cpp.sh: llama.cpp does not build; see $PLACE/build.log" >&2; exit 1; }
fi
"$PYTHON" benches/peers/weights.py "$FILES"
[ "${1:-}" != --build ] || exit 0
cargo build --release --bin shaderlm
python3 benches/peers/generation.py --files "$FILES" --llama-python "$PYTHON" --append benches/RESULTS.md "$@"
