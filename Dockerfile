# The environment of `make env`, and the program. Nothing in it needs root to run; what it writes is in /cache and /store.
#   docker build -t harness .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD/cache:/cache" -v "$PWD/store:/store" harness
# With a GPU: add --gpus all --shm-size 8g. The same for Apptainer: harness.def. See docs/offline.md.
FROM python:3.11.13-slim-bookworm

# A compiler for PyTorch's and the toolboxes' own code, and what OpenCV opens; of Debian's release, which the tag above fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ gcc libc6-dev libgl1 libglib2.0-0 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/harness
COPY LICENSE THIRD_PARTY.md README.md Makefile pyproject.toml ./
COPY harness ./harness
COPY generators ./generators
COPY suites ./suites
COPY leaderboard ./leaderboard
RUN make env \
    && rm -rf /root/.cache
RUN mkdir -p /cache /store \
    && chmod 1777 /cache /store

# HOME and LOGNAME: a user whom the container does not know has neither.
ENV HARNESS_CACHE=/cache/harness \
    HARNESS_STORE=/store \
    HF_HOME=/cache/huggingface \
    HOME=/cache \
    LOGNAME=harness \
    MPLCONFIGDIR=/cache/matplotlib \
    PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
WORKDIR /store
ENTRYPOINT ["/opt/harness/.venv/bin/python", "-m", "harness"]
CMD ["run", "--generator", "lbgen", "--suite", "all"]
