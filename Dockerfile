# Conclave in an image without a shell: the binary, libc, CA certificates, and a user that is not root.
#
#   docker build --build-arg CONCLAVE_COMMIT="$(git rev-parse --short=12 HEAD)" -t conclave .
#
# Tags move. To build the same image again, pin both bases by digest: look one up with
# "docker buildx imagetools inspect docker.io/library/rust:1.95-bookworm" and pass
# --build-arg BUILD_IMAGE=docker.io/library/rust:1.95-bookworm@sha256:..., and RUNTIME_IMAGE in the same way.
# Both bases are Debian 12, so that the binary meets the libc that it was linked with.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-bookworm
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /build

# A layer of dependencies, built with a crate that is empty: it is made again only when the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY benches benches
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && cp src/main.rs src/build.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --bin conclave \
 && rm -r src

COPY src src
# What "conclave --version" and conclave_build_info name as the revision.
ARG CONCLAVE_COMMIT=unknown
# A checkout may carry times older than the layer above, and cargo goes by times.
RUN find src -name '*.rs' -exec touch {} + \
 && CONCLAVE_COMMIT="${CONCLAVE_COMMIT}" cargo build --release --locked --bin conclave

FROM ${RUNTIME_IMAGE}
ARG CONCLAVE_COMMIT=unknown
LABEL org.opencontainers.image.title="Conclave" \
      org.opencontainers.image.description="Realtime rooms for any web application: HTTPS and wss on one port" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${CONCLAVE_COMMIT}"
COPY --from=build /build/target/release/conclave /usr/local/bin/conclave

# Nothing is written below the root: --read-only and --cap-drop ALL are fine.
USER 65532:65532
# Relative paths in the configuration (certs/tls.crt) are meant from here.
WORKDIR /etc/conclave
# For the health check, which asks the admin_listen of this file.
ENV CONCLAVE_CONFIG=/etc/conclave/conclave.toml
# HTTPS and wss; metrics and health.
EXPOSE 8443 9464
# The drain begins: see drain.grace and drain.time, and give the container longer than both to stop.
STOPSIGNAL SIGTERM
# The admin listener is on 127.0.0.1 by default, which is enough for this. A Prometheus outside the container needs
# CONCLAVE_SERVER__ADMIN_LISTEN=0.0.0.0:9464, and a network on which only it can reach that port.
HEALTHCHECK --interval=10s --timeout=4s --start-period=5s --retries=3 \
  CMD ["/usr/local/bin/conclave", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/conclave"]
CMD ["serve", "--config", "/etc/conclave/conclave.toml"]
