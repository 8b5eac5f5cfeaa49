# syntax=docker/dockerfile:1
# One image with all three programs: `tasker-orchestration` (the default), `tasker-worker` and `tasker`.
# It has no shell and no other programs. A worker whose steps run programs (handler `command`) needs an image of its
# own: take another second stage, which has them.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile dist --bin tasker --bin tasker-orchestration --bin tasker-worker \
    && mkdir /out \
    && cp target/dist/tasker target/dist/tasker-orchestration target/dist/tasker-worker /out/

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/ /usr/local/bin/
ENV TASKER_ENV=production
EXPOSE 8080 8081
CMD ["tasker-orchestration"]
