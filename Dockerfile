# The image around the static binary that make build gives: there is no base
# image to pull or to patch. make image builds the same without Docker.
#
#   make build && docker build --tag immuaudit .
#
# For another platform, build the binary for it and name it:
#   docker build --platform linux/arm64 --build-arg BINARY=immuclient-arm64 .
FROM scratch
ARG BINARY=immuclient
COPY --chmod=0755 ${BINARY} /usr/bin/immuclient
COPY --chmod=0644 LICENSE /usr/share/doc/immuclient/LICENSE
# Empty directories: a volume made there begins with its owner and mode. The
# second is for the guard of the state, where IMMUCLIENT_STATE_GUARD names it.
COPY --chown=65532:65532 --chmod=0700 deploy/container/state/ /var/lib/immuclient/
COPY --chown=65532:65532 --chmod=0700 deploy/container/state/ /var/lib/immuclient-guard/
ENV PATH=/usr/bin
ENV IMMUCLIENT_DIR=/var/lib/immuclient
ENV IMMUCLIENT_LOGFILE=-
ENV IMMUCLIENT_LOG_FORMAT=json
USER 65532:65532
WORKDIR /
EXPOSE 9477/tcp
VOLUME ["/var/lib/immuclient"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=1m --retries=3 CMD ["/usr/bin/immuclient", "health"]
ENTRYPOINT ["/usr/bin/immuclient"]
CMD ["audit-mode"]
