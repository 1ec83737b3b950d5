# EXPERIMENTAL: this file is linted, and has never been built.
#
# The image of Dataflow's workers, of the Flex template's launcher, and of a plain `docker run`.
#
#   docker build -t cxr-embed .                                  CPU
#   docker build -t cxr-embed:gpu --build-arg ACCELERATOR=gpu .  NVIDIA GPUs, with CUDA's libraries
#   docker build -t cxr-embed:tpu --build-arg ACCELERATOR=tpu .  TPU v5e
#
#   docker run --entrypoint python -v "$PWD:/data" cxr-embed -m run_inference \
#       --input_path /data/radiographs --output_path /data/embeddings --model_path /data/my_model
#
# Workers fetch a gs:// model by themselves, once a machine. To bake one in instead, add
#   COPY my_model /opt/models/my_model
# at the end, start the job in this image too, and pass --model_path=/opt/models/my_model.

# Same Python minor and Beam version as the launcher: the workers unpickle what it pickled.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

FROM gcr.io/dataflow-templates-base/python311-template-launcher-base:20230622_RC00 AS launcher

FROM python:3.11-slim-bookworm
ARG ACCELERATOR=cpu

WORKDIR /opt/cxr-embed
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY cxr_embed cxr_embed
COPY pipelines pipelines
COPY configs configs
COPY scripts/install_in_image.sh scripts/
RUN scripts/install_in_image.sh "$ACCELERATOR"

# Where Dataflow puts the GPU's driver.
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/nvidia/lib
# A worker with one TPU chip, and nobody to ask for its place among others.
ENV TPU_SKIP_MDS_QUERY=1 \
    TPU_HOST_BOUNDS=1,1,1 \
    TPU_CHIPS_PER_HOST_BOUNDS=1,1,1 \
    TPU_WORKER_HOSTNAMES=localhost \
    TPU_WORKER_ID=0 \
    TPU_ACCELERATOR_TYPE=v5litepod-1

# The SDK harness that Dataflow starts on each worker.
COPY --from=beam /opt/apache/beam /opt/apache/beam

# What starts a job from a Flex template, and what it starts.
COPY --from=launcher /opt/google/dataflow/python_template_launcher /opt/google/dataflow/
ENV FLEX_TEMPLATE_PYTHON_PY_FILE=/opt/cxr-embed/pipelines/run_inference.py

ENTRYPOINT ["/opt/apache/beam/boot"]
