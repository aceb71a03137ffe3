# The image of Ringfence, with Docker: docker build --build-arg VERSION=v0.1.0 --build-arg REVISION=$(git rev-parse HEAD) -t ringfence:v0.1.0 .
#
# It is not the image that is released. That one is made by `make image`, without Docker, of the same packages and the same program, and has neither a
# shell nor apt. This one is for those who build with Docker, or want a shell: it is a Debian system.
#
# The digests are given by whoever builds for others: GOLANG=golang:1.26.8@sha256:..., DEBIAN=debian:bookworm-20250520-slim@sha256:...
ARG GOLANG=golang:1.26.8
ARG DEBIAN=debian:bookworm-20250520-slim

FROM --platform=$BUILDPLATFORM ${GOLANG} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY main.go ./
COPY api ./api
COPY config ./config
COPY controllers ./controllers
COPY enforcer ./enforcer
COPY internal ./internal
COPY lab ./lab
COPY test ./test
ARG VERSION=development REVISION TARGETOS=linux TARGETARCH
# The context has no .git, from which Go would take the commit.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -o /out/ringfence \
    -ldflags "-s -w -X github.com/ringfence-io/ringfence/internal/cli.version=${VERSION} -X github.com/ringfence-io/ringfence/internal/cli.commit=${REVISION}" .

FROM ${DEBIAN}
COPY hack/image/packages /tmp/packages
# What Debian has mended since the base was made comes too.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get upgrade -y \
 && sed 's/#.*//' /tmp/packages | DEBIAN_FRONTEND=noninteractive xargs apt-get install -y --no-install-recommends \
 && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* /tmp/packages
COPY --from=build /out/ringfence /usr/bin/ringfence
RUN ln -s ringfence /usr/bin/ringfence-cni
ARG VERSION=development REVISION
LABEL org.opencontainers.image.title="ringfence" \
      org.opencontainers.image.description="Kubernetes NetworkPolicy for clusters whose CNI does not enforce it" \
      org.opencontainers.image.url="https://github.com/ringfence-io/ringfence" \
      org.opencontainers.image.source="https://github.com/ringfence-io/ringfence" \
      org.opencontainers.image.documentation="https://github.com/ringfence-io/ringfence/tree/main/docs" \
      org.opencontainers.image.vendor="The Ringfence authors" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# Whoever needs root, as enforcers do, says so in the manifest.
USER 65532:65532
ENTRYPOINT ["/usr/bin/ringfence"]
