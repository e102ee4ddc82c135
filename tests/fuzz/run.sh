#!/bin/sh
# Runs one fuzz target over its corpus: tests/fuzz/run.sh TARGET [RUNS=10000000] [libFuzzer options]
# Ends with 0 after RUNS executions without a finding; a finding stays in tests/fuzz/artifacts/TARGET/.
# New inputs go to a folder of their own, and from there into the corpus, as few as cover the same, by
# run.sh TARGET merge
#
# Needs: cargo install cargo-fuzz. A stable toolchain will do: coverage needs no sanitizer runtime
# (`-s none`), and nothing here is `unsafe`, so that an address sanitizer would find little.
set -eu
target=${1:?usage: run.sh TARGET [RUNS=10000000] [libFuzzer options]}
runs=${2:-10000000}
[ $# -lt 2 ] || shift
shift

here=$(cd "$(dirname "$0")" && pwd)
corpus=$here/corpus/$target
found=${FUZZ_FOUND:-${TMPDIR:-/tmp}/conclave-fuzz/$target}
mkdir -p "$corpus" "$found" "$here/artifacts/$target"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$here/target}"
export RUSTC_BOOTSTRAP=1

# The longest input: a few frames, headers or members. Longer ones find the same paths more slowly.
max_len=512
words=$here/dictionaries/$target
[ -f "$words" ] || words=
fuzz() {
    nice cargo fuzz run --fuzz-dir "$here" -s none "$target" "$@" ${words:+"-dict=$words"}
}

if [ "$runs" = merge ]; then
    small=$(mktemp -d)
    fuzz "$small" "$corpus" "$found" -- -set_cover_merge=1 -max_len=$max_len "$@"
    rm -rf "$corpus"
    mv "$small" "$corpus"
    chmod 755 "$corpus"
else
    fuzz "$found" "$corpus" -- -runs="$runs" -max_len=$max_len -timeout=10 -print_final_stats=1 "$@"
fi
