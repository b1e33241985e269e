#!/usr/bin/env bash
# Runs compute-sanitizer over every kernel, a group of kernels a process, and writes one table.
#
#   sanitize.sh BINARY OUT [TOOL...]     tools: plain memcheck racecheck synccheck initcheck; all of them by default
#
# BINARY is the example `sanitize`, built anywhere with
#   CUDA_HOME=$(crates/kernels/toolkit.sh target/cuda-toolkit) TUNESMITH_CUDA_ARCHS=90a \
#   cargo build --release -p kernels --features cuda --example sanitize
# It needs the driver and nothing else of CUDA; cargo and this repository need not be there. The tool should be of
# 2026.3 or later (docs/performance.md says why); it comes as a wheel:
#   python3 -m pip install --no-deps --target tool nvidia-cuda-sanitizer-api==13.4.92
#   chmod +x tool/nvidia/cu13/compute-sanitizer/{compute-sanitizer,TreeLauncherSubreaper}
# In the environment:
# SANITIZER, the tool (compute-sanitizer); LIMIT, seconds a group (120); GROUPS_OF, groups to run (all).
# OUT gets a log a run and table.txt. Ends with 0 if every run is clean or its kernels are absent.
set -uo pipefail
binary=$(realpath "${1:?usage: sanitize.sh BINARY OUT [TOOL...]}")
out=${2:?usage: sanitize.sh BINARY OUT [TOOL...]}
shift 2
tools=("$@")
[ ${#tools[@]} -gt 0 ] || tools=(plain memcheck racecheck synccheck initcheck)
sanitizer=${SANITIZER:-compute-sanitizer}
limit=${LIMIT:-120}
groups=${GROUPS_OF:-$("$binary")}
mkdir -p "$out"

# Options of a tool. Barriers are counted by hand: where the tool's own count is too low, it breaks the program.
options() {
    case $1 in
    memcheck) echo "--padding 256" ;;
    racecheck | synccheck) echo "--num-cuda-barriers 64" ;;
    esac
}

# One word of what a run came to: its exit status, then what the tool counted, then what the program said last.
judge() {
    local tool=$1 group=$2 status=$3 log=$4 summary
    summary=$(grep -aoE '(ERROR|RACECHECK|LEAK) SUMMARY: .*' "$log" | tail -n 1)
    if [ "$status" = 124 ] || [ "$status" = 137 ]; then
        echo "ran out of time"
    elif grep -aq 'is not in this build or not for this card' "$log"; then
        echo "absent"
    elif [ -n "$summary" ] && ! grep -aqE 'SUMMARY: 0 (errors|hazards)' <<<"$summary"; then
        echo "$summary"
    elif ! grep -aq "^$group: [0-9]* launches ended" "$log"; then
        echo "failed: $(tail -n 1 "$log")"
    elif [ "$status" != 0 ]; then
        echo "failed with status $status"
    elif [ "$tool" != plain ] && [ -z "$summary" ]; then
        echo "the tool gave no summary"
    else
        echo "clean"
    fi
}

{
    [ "${tools[*]}" = plain ] || "$sanitizer" --version 2>/dev/null | grep -a '^Version'
    printf '%-10s %-17s %7s  %s\n' tool group seconds result
} | tee "$out/table.txt"
bad=0
for tool in "${tools[@]}"; do
    for group in $groups; do
        log=$out/$tool-$group.log
        command=("$binary" "$group")
        # shellcheck disable=SC2046 # several words are meant
        [ "$tool" = plain ] || command=("$sanitizer" --tool "$tool" --print-limit 20 $(options "$tool") "${command[@]}")
        began=$(date +%s.%N)
        timeout -k 5 "$limit" "${command[@]}" >"$log" 2>&1
        status=$?
        seconds=$(awk -v a="$began" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')
        result=$(judge "$tool" "$group" "$status" "$log")
        printf '%-10s %-17s %7s  %s\n' "$tool" "$group" "$seconds" "$result" | tee -a "$out/table.txt"
        case $result in clean | absent) ;; *) bad=1 ;; esac
    done
done
exit "$bad"
