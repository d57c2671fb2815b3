#!/usr/bin/env bash
# The two-step protocol (docs/protocol.md) with curl and jq: look the nodes up once, then send them images in turn.
set -u -o pipefail

usage() {
  echo 'usage: lookup.sh SERVICE                 the passing nodes, one URL per line'
  echo '       lookup.sh SERVICE IMAGE...        send each image straight to a node, the next one to the next'
  echo 'environment: TWOSTEP_REGISTRY  lookup://HOST:PORT,HOST:PORT (default lookup://127.0.0.1:8700), lookup+https://...,'
  echo '                               or consul://HOST:PORT for Consul itself'
  echo '             TWOSTEP_LOOKUP_TOKEN or CONSUL_HTTP_TOKEN'
} >&2

fail() { echo "lookup.sh: $1" >&2; exit "${2:-1}"; }

case "${1--h}" in -h | --help | '') usage; exit 2 ;; esac
for tool in curl jq; do command -v "$tool" >/dev/null || fail "$tool is missing; install it"; done
service=$(jq -rn --arg name "$1" '$name | @uri'); shift
registry=${TWOSTEP_REGISTRY:-lookup://127.0.0.1:8700}
IFS=, read -ra hosts <<<"${registry#*://}"

# --- Step 1: who is healthy? Each address is asked once, beginning anywhere.
case $registry in
  lookup://* | lookup+https://*)
    scheme=http; [[ $registry == lookup+https* ]] && scheme=https
    port=8700 path="/v1/lookup/$service"
    header=${TWOSTEP_LOOKUP_TOKEN:+Authorization: Bearer $TWOSTEP_LOOKUP_TOKEN}
    nodes='.instances[] | select((.health // "passing") == "passing") | [.meta.scheme, .address, .port]' ;;
  consul://*)
    scheme=http port=8500 path="/v1/health/service/$service?passing=1&stale"
    header=${CONSUL_HTTP_TOKEN:+X-Consul-Token: $CONSUL_HTTP_TOKEN}
    # An empty address of the service is its machine's.
    nodes='.[] | [.Service.Meta.scheme, (if (.Service.Address // "") == "" then .Node else .Service end).Address, .Service.Port]' ;;
  *) fail 'TWOSTEP_REGISTRY: use lookup://10.0.0.1:8700,10.0.0.2:8700 or consul://127.0.0.1:8500' 2 ;;
esac
urls="[$nodes | \"\(.[0] // \"http\")://\(.[1] | if contains(\":\") then \"[\(.)]\" else . end):\(.[2])\"] | @tsv"
first=$((RANDOM % ${#hosts[@]})) known='' list=()
for ((i = 0; i < ${#hosts[@]}; i++)); do
  host=${hosts[(first + i) % ${#hosts[@]}]}
  [[ $host =~ :[0-9]+$ ]] || host+=":$port"
  # The token goes in on standard input, so that no list of processes shows it.
  answer=$(curl -sS --compressed -m 7 --connect-timeout 2 -H @- -w '\n%{http_code}' "$scheme://$host$path" <<<"$header")
  status=${answer##*$'\n'} body=${answer%$'\n'*}
  if [[ $status == 200 ]] && found=$(jq -er "$urls" <<<"$body" 2>/dev/null); then
    known=yes
    IFS=$'\t' read -ra list <<<"$found"
    break
  fi
  echo "lookup.sh: $host: $(jq -er '.error' <<<"$body" 2>/dev/null || echo "no list from it (status $status)")" >&2
done
[[ $known ]] || fail "nobody could say where $service is; check TWOSTEP_REGISTRY"
((${#list[@]})) || fail "no node of $service is passing"
(($#)) || { printf '%s\n' "${list[@]}"; exit 0; }

# --- Step 2: each image straight to a node, the next image to the next; another node when one cannot ("status").
turn=$((RANDOM % ${#list[@]})) failed=0
for image in "$@"; do
  [[ -r $image ]] || { echo "lookup.sh: $image cannot be read" >&2; failed=1; continue; }
  for ((attempt = 1; attempt <= ${#list[@]}; attempt++)); do
    node=${list[turn++ % ${#list[@]}]}
    answer=$(curl -sS -m 30 --connect-timeout 2 --data-binary "@$image" -H "x-envoy-attempt-count: $attempt" \
      -w '\n%{http_code}' "$node/classify?top=1")
    status=${answer##*$'\n'} body=${answer%$'\n'*}
    case $status in
      200) jq -r --arg image "$image" '[$image, (.results[0].predictions[0] | .label, .score), .node] | @tsv' <<<"$body"
           break ;;
      000 | 500 | 503) echo "lookup.sh: $node: ${body:-no answer}; trying another node with $image" >&2 ;;
      *) echo "lookup.sh: $node refused $image: $body" >&2; failed=1; break ;;
    esac
  done
  ((attempt <= ${#list[@]})) || { echo "lookup.sh: no node took $image" >&2; failed=1; }
done
exit $failed
