#!/bin/sh
# Holds the dependencies to ops/deny.toml. With cargo-deny installed ("cargo install --locked cargo-deny") all of its
# rules; the bans that keep the server from panicking at its first handshake are checked with cargo alone in any case.
set -eu
cd "$(dirname "$0")/.."

failed=0
for crate in ring openssl openssl-sys native-tls rsa; do
  # It fails for a crate that the lock file does not name, and prints nothing for one that nobody uses.
  users=$(cargo tree --locked --all-features --target all --edges normal,build --invert "$crate" 2>/dev/null) || users=
  if [ -n "$users" ]; then
    printf '%s must not be here (ops/deny.toml):\n%s\n' "$crate" "$users" >&2
    failed=1
  fi
done
for crate in rustls tokio hyper http axum tungstenite; do
  # Fails when there are two versions, because the name alone does not say which.
  if ! cargo tree --locked --all-features --edges normal,build,dev --invert "$crate" --depth 0 > /dev/null; then
    failed=1
  fi
done
if command -v cargo-deny > /dev/null; then
  cargo deny check --config ops/deny.toml bans licenses sources || failed=1
else
  echo "cargo-deny is not installed: licences and sources were not checked" >&2
  failed=1
fi
exit $failed
