# A worker image for Dataflow, or for a plain `docker run`. Not built by the test suite.
#
#   docker build -t cxr-embed .
#   docker run --entrypoint python -v $PWD:/data cxr-embed -m run_inference \
#       --input_path /data/radiographs --output_path /data/embeddings --model_path /data/my_model
#
# Same Python minor and Beam version as the launcher: the workers unpickle what it pickled.
FROM apache/beam_python3.11_sdk:2.77.0 AS beam

FROM python:3.11-slim-bookworm
WORKDIR /app
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY cxr_embed cxr_embed
COPY pipelines pipelines
COPY configs configs
RUN pip install --no-cache-dir -c constraints.txt '.[openvino]'

# The SDK harness that Dataflow starts on each worker.
COPY --from=beam /opt/apache/beam /opt/apache/beam
ENTRYPOINT ["/opt/apache/beam/boot"]
