#!/bin/sh
# Makes every key and password that compose.yml names, in secrets/ beside this file; what is there already stays.
#
# The folder is closed to other users of this machine. The files in it are not, because Compose hands them to containers
# as they are, and a container's user is nobody here: "check-config" warns of it.
set -eu
cd "$(dirname "$0")"
mkdir -p secrets
chmod 700 secrets
cd secrets

if [ ! -e tls.key ]; then
  # Trusted by itself, and by nobody else. Yours: a certificate for the name that users use.
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 90 -keyout tls.key -out tls.crt \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost,DNS:realtime.example.com,DNS:a,DNS:b \
    -addext basicConstraints=critical,CA:FALSE 2> /dev/null
fi
[ -e jwt.secret ] || openssl rand -base64 48 > jwt.secret
[ -e admin.token ] || openssl rand -hex 32 > admin.token
[ -e grafana.password ] || openssl rand -hex 16 > grafana.password
if [ ! -e redis.auth ]; then
  password=$(openssl rand -hex 24)
  echo "requirepass $password" > redis.auth
  echo "redis://:$password@redis:6379" > redis.url
fi
chmod 644 -- *
