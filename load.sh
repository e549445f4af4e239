#!/usr/bin/env bash
# Drives a running server: ./load.sh [RATE] [URL] [options]. It is `saola load`; see `./load.sh --help`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -n "${SAOLA_BIN:-}" ]; then
  exec "$SAOLA_BIN" load "$@"
elif [ -x "$here/target/release/saola" ]; then
  exec "$here/target/release/saola" load "$@"
elif command -v saola >/dev/null 2>&1; then
  exec saola load "$@"
else
  cd "$here"
  exec cargo run --release --quiet -- load "$@"
fi
