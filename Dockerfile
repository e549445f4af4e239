# The reference application as an image: `docker build -t saola .`, `docker run --shm-size 256m -p 127.0.0.1:8000:8000 saola`.
# Build and runtime have the same Debian release, because the program is linked with its C library.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY . .
# .cargo/config.toml keeps frame pointers and Cargo.toml line tables: stack walks and profiles need both.
RUN cargo build --release --locked --bin saola && mkdir /data

FROM debian:13-slim AS debian
LABEL org.opencontainers.image.title="saola" \
      org.opencontainers.image.description="The reference application of Saola, a preforking HTTP server" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
COPY --from=build /src/target/release/saola /usr/bin/saola
# Whom https collectors and profile servers are trusted by; the push client does not start without any.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
# Where the embedded database is, unless DATABASE_URL names another.
COPY --from=build --chown=65532:65532 /data /var/lib/saola
WORKDIR /var/lib/saola
VOLUME /var/lib/saola
# Inside a container the world is the container: what is published decides who may come.
ENV SAOLA_BIND=0.0.0.0:8000 \
    SAOLA_ADMIN_BIND=0.0.0.0:8001
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/saola"]
CMD ["serve"]
