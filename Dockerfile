# syntax=docker/dockerfile:1
# The CPU image: linux/amd64 and linux/arm64. See docs/containers.md.
#
#   docker build -t densemamba .
#   docker run --rm -p 8080:8080 densemamba
#
# Node, a C compiler, and strip. To pin the bytes too, append the digest that `docker buildx imagetools inspect` shows for the tag.
ARG BUILD_IMAGE=node:22.23.3-bookworm
# A C library, certificates and time zones, neither shell nor package manager. It has no versions but digests.
ARG BASE_IMAGE=gcr.io/distroless/cc-debian13:nonroot@sha256:e792ab3d241a468a4fd7519ddbbebe66b49b5f365771716ea688ad40b6c6f1c2

FROM ${BUILD_IMAGE} AS build
WORKDIR /app
COPY package.json package-lock.json ./
# Install scripts wait or stay away: ours needs the sources, the dependencies' own download what is not wanted here.
RUN --mount=type=cache,target=/root/.npm npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
COPY web ./web
RUN npm run build
COPY kernels ./kernels
# For every CPU of this architecture: the library chooses among its instruction sets when it is loaded.
RUN node dist/cli/main.js kernels --out /app/library/libdensemamba-kernels.so --cache-dir /var/tmp/kernels
COPY docker/slim.mjs ./docker/
RUN npm prune --omit=dev --ignore-scripts --no-audit --no-fund && node docker/slim.mjs \
    && mkdir bin && strip -o bin/node "$(command -v node)"
COPY LICENSE openapi.yaml ./
COPY models/densemamba-tales-4m ./models/densemamba-tales-4m
# Compiles the default model ahead of the first start, and shows that what was built runs.
# The other folder is for states that are to survive a restart: a volume mounted there takes over whom it belongs to.
# OpenShift runs containers as any user, in group 0: that may do what the owner may.
RUN mkdir -p /var/lib/densemamba && node dist/cli/main.js score --token-ids 1,2 --device cpu --cache-dir /var/cache/densemamba \
    --kernel-library /app/library/libdensemamba-kernels.so \
    && chmod -R g=u /var/cache/densemamba /var/lib/densemamba

FROM ${BASE_IMAGE}
# For the labels: the repository's address, and the commit.
ARG SOURCE=""
ARG REVISION=""
LABEL org.opencontainers.image.title="densemamba" \
    org.opencontainers.image.description="OpenAI-compatible inference server for state-space language models" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.source="${SOURCE}" \
    org.opencontainers.image.revision="${REVISION}" \
    org.opencontainers.image.version="0.1.0"
ENV NODE_ENV=production \
    DENSEMAMBA_HOST=0.0.0.0 \
    DENSEMAMBA_PORT=8080 \
    DENSEMAMBA_CACHE_DIR=/var/cache/densemamba \
    DENSEMAMBA_KERNEL_LIBRARY=/app/library/libdensemamba-kernels.so \
    HF_HOME=/var/cache/densemamba/huggingface
WORKDIR /app
COPY --from=build /app/bin/node /usr/local/bin/node
COPY --from=build /app/node_modules ./node_modules
COPY --from=build /app/models ./models
COPY --from=build /app/library ./library
COPY --from=build /app/dist ./dist
COPY --from=build /app/package.json /app/LICENSE /app/openapi.yaml ./
# Writable, for models that are mounted and compiled here. The default model needs no writing: the root may be read-only.
COPY --from=build --chown=1000:0 /var/cache/densemamba /var/cache/densemamba
COPY --from=build --chown=1000:0 /var/lib/densemamba /var/lib/densemamba
# By number, so that Kubernetes can see that it is not root.
USER 1000:1000
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.DENSEMAMBA_PORT}/health`).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "/app/dist/cli/main.js", "serve"]
