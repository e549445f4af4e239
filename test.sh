#!/usr/bin/env bash
# Everything that must hold before a change is called finished: format, lints, documentation, tests, and the walls between
# the crates. CI runs this and nothing else. SAOLA_LONG=1 runs the long forms of the tests.
set -euo pipefail
cd "$(dirname "$0")"

# What the tests of the reference application need: PostgreSQL, Redis, newman and schemathesis. The tests find the last two
# in target/tools. Where root may install them, they are installed.
postgres() { compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null; }
packages=()
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v make >/dev/null || packages+=(make) # builds jemalloc
postgres || packages+=(postgresql)
command -v redis-server >/dev/null || packages+=(redis-server)
command -v npm >/dev/null || packages+=(nodejs npm)
python3 -c 'import ensurepip, venv' 2>/dev/null || packages+=(python3-venv)
if [ ${#packages[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  apt-get update -qq && apt-get install -qq -y --no-install-recommends "${packages[@]}" >/dev/null || true
fi
tools=target/tools
if [ ! -x $tools/newman/node_modules/.bin/newman ] && command -v npm >/dev/null; then
  npm install --silent --no-audit --no-fund --prefix $tools/newman newman@6.2.2 >/dev/null || true
fi
if [ ! -x $tools/schemathesis/bin/schemathesis ] && python3 -c 'import ensurepip, venv' 2>/dev/null; then
  python3 -m venv $tools/schemathesis && $tools/schemathesis/bin/pip -q install -r tests/app/schemathesis.txt || true
fi
missing=()
command -v cargo >/dev/null || missing+=("cargo and rustc 1.95 or newer (rustup installs them)")
command -v cc >/dev/null || missing+=("a C compiler (apt-get install gcc libc6-dev)")
command -v make >/dev/null || missing+=("make (apt-get install make)")
if [ ${#missing[@]} -gt 0 ]; then
  printf 'test.sh: missing: %s\n' "${missing[@]}" >&2
  exit 1
fi

# Without these their tests are left out and say so; in CI they fail.
optional=()
postgres || optional+=("PostgreSQL 15 or newer (apt-get install postgresql)")
command -v redis-server >/dev/null || optional+=("Redis (apt-get install redis-server)")
[ -x $tools/newman/node_modules/.bin/newman ] || optional+=("newman (npm install --prefix $tools/newman newman@6.2.2)")
[ -x $tools/schemathesis/bin/schemathesis ] || optional+=("schemathesis (python3 -m venv $tools/schemathesis; $tools/schemathesis/bin/pip install -r tests/app/schemathesis.txt)")
if [ ${#optional[@]} -gt 0 ]; then
  printf 'test.sh: not installed, so not tested with: %s\n' "${optional[@]}" >&2
fi

# Links take memory: two at a time are enough for two cores.
export CARGO_BUILD_JOBS=${CARGO_BUILD_JOBS:-2}
step() { printf '\n== %s\n' "$*"; "$@"; }

step cargo fmt --all --check
step cargo fmt --manifest-path benches/peers/Cargo.toml --check
step cargo clippy --workspace --all-targets --locked -- -D warnings
step env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
step cargo test --workspace --locked
# Another allocator: its own part is little, and nobody else builds it.
# (The whole workspace, so that what it has in common with the above is not built again.)
step cargo clippy --workspace --features saola-reference/jemalloc --all-targets --locked -- -D warnings
step cargo build --workspace --features saola-reference/jemalloc --bins --locked
step cargo test --workspace --features saola-reference/jemalloc --locked --test black_box -- heap
# A workspace of its own, in the same target folder.
peers=(--manifest-path benches/peers/Cargo.toml --target-dir target)
step cargo clippy "${peers[@]}" --all-targets -- -D warnings
step cargo test "${peers[@]}"

# The supervisor forks: nothing that starts a thread may come into its tree.
for crate in tokio hyper opentelemetry; do
  printf '\n== the supervisor does not depend on %s\n' "$crate"
  if cargo tree --locked -p saola-supervisor -e normal -i "$crate" >/dev/null 2>&1; then
    echo "test.sh: saola-supervisor depends on $crate" >&2
    exit 1
  fi
done

if cargo deny --version >/dev/null 2>&1; then
  step cargo deny --config .cargo/deny.toml check
else
  printf '\n== cargo deny is not installed: licences and advisories were not checked (cargo install cargo-deny)\n'
fi
printf '\nall checks passed\n'
