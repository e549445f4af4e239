#!/usr/bin/env bash
# Drives a running server: ./load.sh [RATE] [URL] [options]. It is `saola load`; see `./load.sh --help`.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

container() { command -v docker >/dev/null && [ -n "$(docker compose --project-directory "$here" ps -q app 2>/dev/null)" ]; }

if [ -n "${SAOLA_BIN:-}" ]; then
  exec "$SAOLA_BIN" load "$@"
elif [ -x "$here/target/release/saola" ]; then
  exec "$here/target/release/saola" load "$@"
elif command -v saola >/dev/null 2>&1; then
  exec saola load "$@"
elif container; then
  exec docker compose --project-directory "$here" exec -T app saola load "$@"
else
  cd "$here"
  exec cargo run --release --quiet -- load "$@"
fi
