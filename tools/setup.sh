#!/bin/sh
# Makes the virtual environment; with the argument "tests", also gets what the tests need: compilers, an emulator, a
# browser, strace.
# Installs missing Debian packages where it may, and says which where it may not.
set -eu
PYTHON=${PYTHON:-python3}
VENV=${VENV:-.venv}

command -v "$PYTHON" >/dev/null || { echo "setup: no $PYTHON; install Python 3.11 or newer"; exit 1; }
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $("$PYTHON" --version) is too old; development needs 3.11 or newer (make PYTHON=python3.12 ...)"
    exit 1
}

# One at a time: two would write the same environment.
exec 9<pyproject.toml
flock 9

# Packages that the environment is made with, those that programs use, and those that the tests use.
to_begin="" to_run="" for_tests="" need_browser=""
command -v cc >/dev/null || to_begin="$to_begin gcc libc6-dev"
"$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || to_begin="$to_begin python3-venv"
# The simulated camera draws without a display, through EGL and a software renderer.
ldconfig -p 2>/dev/null | grep -q 'libEGL.so.1' || to_run="$to_run libegl1"
ldconfig -p 2>/dev/null | grep -q 'libEGL_' || to_run="$to_run libegl-mesa0"
ls /usr/lib/*/dri/*swrast* >/dev/null 2>&1 || ls /usr/lib/*/libgallium* >/dev/null 2>&1 || to_run="$to_run libgl1-mesa-dri"
if [ "${1:-}" = tests ]; then
    command -v arm-none-eabi-gcc >/dev/null || for_tests="$for_tests gcc-arm-none-eabi libnewlib-arm-none-eabi"
    command -v qemu-system-arm >/dev/null || for_tests="$for_tests qemu-system-arm"
    if [ "$(uname -m)" != aarch64 ]; then
        command -v qemu-aarch64-static >/dev/null || for_tests="$for_tests qemu-user-static"
        [ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ] || for_tests="$for_tests libc6-arm64-cross"
    fi
    command -v cppcheck >/dev/null || for_tests="$for_tests cppcheck"
    command -v clang >/dev/null || for_tests="$for_tests clang"
    command -v strace >/dev/null || for_tests="$for_tests strace"
    command -v chromium-headless-shell >/dev/null || command -v chromium >/dev/null || need_browser=yes
fi

as_root=""
if [ -n "$to_begin$to_run$for_tests$need_browser" ] && [ "$(id -u)" != 0 ]; then
    as_root="sudo -n"
    if ! sudo -n true 2>/dev/null; then
        missing="$to_begin$to_run$for_tests"
        [ -z "$missing" ] || { echo "setup: may not install packages; run:  sudo apt-get install$missing"; exit 1; }
        need_browser="" # the test of the live page is skipped
    fi
fi
listed=""
list() {
    [ -n "$listed" ] || $as_root apt-get update -qq
    listed=yes
}
install() {
    list
    echo "setup: installing $*"
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@"
}
install_rest() {
    list
    # libFuzzer is a part of clang's run-time library, which some releases package apart.
    case "$for_tests" in
    *clang*) ! apt-cache show libclang-rt-dev >/dev/null 2>&1 || for_tests="$for_tests libclang-rt-dev" ;;
    esac
    # The smaller of the two browsers that Debian has; Ubuntu has neither as a package, and the test is then skipped.
    for browser in chromium-headless-shell chromium; do
        [ -z "$need_browser" ] || ! apt-cache show $browser >/dev/null 2>&1 || { for_tests="$for_tests $browser"; break; }
    done
    [ -z "$to_run$for_tests" ] || install $to_run $for_tests
}
[ -z "$to_begin" ] || install $to_begin
# What only programs and tests need is unpacked beside the Python packages.
installing=""
[ -z "$to_run$for_tests$need_browser" ] || { install_rest & installing=$!; }

[ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
# pip would compile all of it on one core; what is imported is compiled when it is.
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
# openpi's own client, for the tests of the server: it asks for numpy 1, which it does not need.
[ "${1:-}" != tests ] || "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-compile --no-deps openpi-client==0.1.2
[ -z "$installing" ] || wait "$installing"
