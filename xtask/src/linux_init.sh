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
# How many interrupts with that name have come.
count() {
    $b awk -v name="$1" '$0 ~ name { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { print n + 0 }' /proc/interrupts
}
came() {
    [ "$(count "$1")" -gt 0 ]
}
vcpus=$($b sed 's/.*vcpus=\([0-9]*\).*/\1/' /proc/cmdline)
# A VM that is to be reset is, once.
if $b grep -q reboots /proc/cmdline; then
    if $b od -An -tx1 /proc/device-tree/chosen/doorbell,resets | $b grep -q "00 00 00 00"; then
        $b reboot -f
    fi
    check "it has begun again" true
fi
check "Linux runs its first program" true
check "it knows the time" [ "$($b date +%Y)" -ge 2020 ]
check "it sleeps and wakes" $b sleep 1
check "its timer interrupts" came arch_timer
if $b grep -q typed /proc/cmdline; then
    echo "type a line"
    read -r line
    check "what is typed arrives" [ "$line" = typed ]
    check "its UART interrupts" came uart-pl011
fi
check "its CPUs are there" [ "$($b nproc)" = "$vcpus" ]
if [ "$vcpus" -gt 1 ]; then
    check "a program runs on each" [ "$(i=0; while [ $i -lt $vcpus ]; do $b taskset -c $i $b sh -c 'echo x'; i=$((i + 1)); done | $b grep -c x)" = "$vcpus" ]
    check "its CPUs interrupt each other" came "IPI[01]"
    # Each goes off and comes back.
    off=0
    i=1
    while [ $i -lt $vcpus ]; do
        echo 0 >/sys/devices/system/cpu/cpu$i/online && [ "$($b nproc)" = $((vcpus - 1)) ] &&
            echo 1 >/sys/devices/system/cpu/cpu$i/online && [ "$($b nproc)" = "$vcpus" ] && off=$((off + 1))
        i=$((i + 1))
    done
    check "its CPUs go off and on" [ $off = $((vcpus - 1)) ]
fi
$b cat /proc/interrupts
echo "result: $passed passed, $failed failed"
$b sleep 1
$b poweroff -f
