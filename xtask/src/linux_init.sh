#!/bin/busybox sh
# The first program of a Linux that is booted to see whether it works: one line a check, and the end.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
passed=0
failed=0
check() {
    name=$1
    shift
    if "$@"; then
        passed=$((passed + 1))
        echo "check $name: passed"
    else
        failed=$((failed + 1))
        echo "check $name: failed"
    fi
}
# Whether an interrupt with that name has come.
came() {
    $b awk -v name="$1" '$0 ~ name { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { exit n == 0 }' /proc/interrupts
}
check "Linux runs its first program" true
check "it sleeps and wakes" $b sleep 1
check "its timer interrupts" came arch_timer
check "its CPUs are there" [ "$($b nproc)" -ge 1 ]
$b cat /proc/interrupts
echo "result: $passed passed, $failed failed"
$b sleep 1
$b poweroff -f
