# The workflow and its pins (envs/) in a container, for the folder in which it is called:
#   docker build -t icl-transience .
#   docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/work" icl-transience
# and with Apptainer, which is in the folder anyway:
#   apptainer build icl-transience.sif docker-daemon:icl-transience:latest
#   apptainer run icl-transience.sif
# Arguments are snakemake's. For builds of PyTorch without CUDA, some gigabytes smaller:
#   docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cpu -t icl-transience .
FROM python:3.11-slim-bookworm

# Kernels are compiled for the processor that they run on; git says in provenance.json which commit that was.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /icl-transience
ARG TORCH_INDEX=""
COPY envs/requirements.txt envs/constraints.txt envs/
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    -c envs/constraints.txt -r envs/requirements.txt
COPY . .
RUN pip install --no-cache-dir --no-deps -e .

# Whoever calls it: no user of the container's owns a home.
ENV HOME=/tmp
WORKDIR /work
ENTRYPOINT ["snakemake", "--snakefile", "/icl-transience/Snakefile"]
