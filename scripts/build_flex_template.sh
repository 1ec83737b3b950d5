#!/usr/bin/env bash
# Builds the worker image in Cloud Build and the Flex template that starts jobs with it.
#
#   PROJECT=my-project BUCKET=gs://my-bucket scripts/build_flex_template.sh [cpu|gpu|tpu]
#
# REGION (us-central1), REPOSITORY (cxr-embed) and VERSION (pyproject's) may be set, too.
# DRY_RUN=1 prints the commands instead of running them.
set -euo pipefail
cd "$(dirname "$0")/.."

accelerator="${1:-cpu}"
case "$accelerator" in cpu | gpu | tpu) ;; *)
  echo "no such accelerator: $accelerator (cpu, gpu or tpu)" >&2
  exit 2
  ;;
esac
: "${PROJECT:?set PROJECT to your Google Cloud project}"
: "${BUCKET:?set BUCKET to a bucket of yours, gs://...}"
region="${REGION:-us-central1}"
repository="${REPOSITORY:-cxr-embed}"
version="${VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)}"
image="$region-docker.pkg.dev/$PROJECT/$repository/$accelerator:$version"
template="${BUCKET%/}/templates/cxr-embed-$accelerator-$version.json"

run() {
  if [ -n "${DRY_RUN:-}" ]; then echo "$*"; else "$@"; fi
}

# Cloud Build has no --build-arg: the argument is set in a file with one step.
build_steps="$(mktemp --suffix=.yaml)"
trap 'rm -f "$build_steps"' EXIT
cat >"$build_steps" <<STEPS
steps:
  - name: gcr.io/cloud-builders/docker
    args: [build, --build-arg, ACCELERATOR=$accelerator, -t, $image, .]
images: [$image]
timeout: 3600s
options: {machineType: E2_HIGHCPU_8, diskSizeGb: 100}
STEPS

run gcloud builds submit --project "$PROJECT" --config "$build_steps" .
run gcloud dataflow flex-template build "$template" --project "$PROJECT" --image "$image" \
  --sdk-language PYTHON --metadata-file metadata.json
echo "image     $image"
echo "template  $template"
