#!/usr/bin/env bash
# Sends a model, waits for the job, downloads what it made and checks it. Needs curl 7.71 or newer and jq.
#
#   export BAYESPRESS_URL=http://127.0.0.1:8000      # and BAYESPRESS_API_KEY where the service asks for a key
#   ./submit.sh model.onnx train.parquet small '{"max_metric_drop": 0.01}'
#
# In place of a file of rows a reference may stand (builtin:digits). Exits with 0 when the job has succeeded, 3 where a budget or a gate was
# not met (its artifacts are downloaded all the same), 1 for everything else. What makes sending again safe is the Idempotency-Key: whatever
# breaks, the same key gives the same job. Set BAYESPRESS_IDEMPOTENCY_KEY where the whole script may be run again, by CI for one.
set -euo pipefail

model=$1 rows=$2 out=$3 config=${4:-"{}"}
url=${BAYESPRESS_URL:-http://127.0.0.1:8000}
idempotency_key=${BAYESPRESS_IDEMPOTENCY_KEY:-$(cat /proc/sys/kernel/random/uuid)}

# --retry: again where the service is busy; --retry-all-errors: also where the connection breaks, on the way there or back.
# The key comes from a file descriptor: arguments can be read by every user of the machine.
api() {
  curl --silent --show-error --retry 6 --retry-all-errors --config <(
    if [[ -n ${BAYESPRESS_API_KEY:-} ]]; then printf 'header = "Authorization: Bearer %s"\n' "$BAYESPRESS_API_KEY"; fi
  ) "$@"
}

create() {
  if [[ -f $rows ]]; then rows_part=(--form "dataset=@\"$rows\""); else rows_part=(--form-string "dataset_ref=$rows"); fi
  api --output "$out/job.json" --write-out '%{http_code}' --header "Idempotency-Key: $idempotency_key" \
    --form "model=@\"$model\"" "${rows_part[@]}" --form-string "config=$config" "$url/v1/jobs"
}

mkdir -p "$out"
for _ in {1..60}; do
  code=$(create) || exit 1
  [[ $code == 409 ]] || break # an earlier try is still being received
  sleep 2
done
if [[ $code != 202 ]]; then
  jq . "$out/job.json" >&2
  exit 1
fi
id=$(jq -r .id "$out/job.json")

while
  api --fail --output "$out/job.json" "$url/v1/jobs/$id?wait=30" || exit 1
  jq -e '.finished_at == null' "$out/job.json" >/dev/null
do
  jq -r '"\(.status) \(.phase // "") \(.progress * 100 | floor) %, \(.eta_s // "?" | tostring | split(".")[0]) s left"' "$out/job.json" >&2
done

jq -r '.verdict // .error.detail // .status' "$out/job.json"
case $(jq -r .status "$out/job.json") in
  succeeded) status=0 ;;
  failed_gate) status=3 ;;
  *) exit 1 ;;
esac

api --fail "$url/v1/jobs/$id/artifacts" | jq -r '.data[] | "\(.sha256)  \(.name)"' >"$out/SHA256SUMS" || exit 1
while read -r _ name; do
  api --fail --output "$out/$name" "$url/v1/jobs/$id/artifacts/$name" </dev/null || exit 1
done <"$out/SHA256SUMS"
(cd "$out" && sha256sum --quiet --check SHA256SUMS) || exit 1
exit "$status"
